"""The servers that are measured: ours and the peers. Each knows how it starts, its fio options and its pid.

A server is started in front of its turn and ended after it, but for those whose data goes with the process (memory),
which live as long as the run. All serve data that was written before: no holes, no pages never touched.
"""

import json
import os
import shutil
import signal
import subprocess
import time

from measure import MeasureError, disk_bytes_written

START_WAIT_S = 20
END_WAIT_S = 20


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise MeasureError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Bench:
    """Folders, the machine, and everything that has to be ended."""

    def __init__(self, machine, build, scratch, memory_dir, disk_dir, volume_bytes):
        self.machine = machine
        self.build = build  # where programs and the fio engine are
        self.scratch = scratch  # sockets, logs
        self.memory_dir = memory_dir
        self.disk_dir = disk_dir
        self.volume_bytes = volume_bytes
        self.engine = os.path.abspath(f"{build}/fio-vhost-blk.so")
        self.processes = []

    def spawn(self, name, command, medium, cores=None):
        with open(f"{self.scratch}/{name}.log", "ab") as log:
            process = subprocess.Popen(
                self.machine.on_server(command, medium, cores), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def end(self, process):
        if process not in self.processes:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.remove(process)

    def end_all(self):
        for process in list(self.processes):
            self.end(process)

    def wait_for(self, process, name, ready):
        deadline = time.monotonic() + START_WAIT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                with open(f"{self.scratch}/{name}.log", encoding="utf-8", errors="replace") as log:
                    raise MeasureError(f"{name} does not start: {log.read()[-1000:]}")
            time.sleep(0.01)


class Server:
    """name: in tables. kind: vhost, nbd or raw. medium: ram, tmpfs or disk."""

    keep = False  # lives as long as the run

    def __init__(self, bench, name, kind, medium):
        self.bench, self.name, self.kind, self.medium = bench, name, kind, medium
        self.process = None
        self.slug = "".join(c if c.isalnum() else "-" for c in f"{name}-{kind}-{medium}")
        self.socket = f"{bench.scratch}/{self.slug}.sock"

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def start(self):
        pass

    def stop(self):
        if self.process:
            self.bench.end(self.process)
            self.process = None

    def launch(self, command):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.process = self.bench.spawn(self.slug, command, self.medium)
        self.bench.wait_for(self.process, self.slug, lambda: os.path.exists(self.socket))

    def fio_options(self):
        if self.kind == "vhost":
            return [f"--ioengine=external:{self.bench.engine}", f"--filename={self.socket}"]
        return ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={self.socket}"]

    def written(self):
        """(bytes written to disks, bytes that clients wrote) since the start; None for what cannot be told."""
        return (disk_bytes_written(self.pid), None) if self.pid and self.medium == "disk" else None


# ---- ours ----


class Pool:
    """A poold with one pool "tank" of one disk. Volumes are exported under their names."""

    def __init__(self, bench, name, disk, program="poold", cores=None, flags=()):
        self.bench, self.name, self.disk = bench, name, disk
        self.control = f"{bench.scratch}/{name}.control"
        self.program = f"{bench.scratch}/{program}"
        self.cores = cores or str(bench.machine.server_core)
        self.flags = list(flags)
        self.process = None

    def ctl(self, *words):
        return run(f"{self.bench.scratch}/poolctl", "--socket", self.control, *words)

    def start(self):
        state = f"{self.bench.scratch}/{self.name}.state"
        shutil.rmtree(state, ignore_errors=True)
        command = [self.program, "--socket", self.control, "--state", state, "--cores", self.cores, *self.flags]
        self.process = self.bench.spawn(self.name, command, "ram" if self.disk.startswith("ram:") else "disk", self.cores)
        self.bench.wait_for(self.process, self.name, self.answers)
        self.ctl("pool", "create", "tank", self.disk, "--force")

    def answers(self):
        try:
            return bool(self.ctl("status"))
        except MeasureError:
            return False

    def stop(self):
        if self.process:
            self.bench.end(self.process)
            self.process = None

    def add(self, volume, size_bytes, export="--vhost-user", queues=None):
        """A new volume with an export: the path of its socket."""
        socket = f"{self.bench.scratch}/{self.name}.{volume}.sock"
        address = f"unix:{socket}" if export == "--nbd" else socket
        self.ctl("volume", "create", f"tank/{volume}", "--size", str(size_bytes))
        self.ctl("export", "add", f"tank/{volume}", export, address, *(["--queues", str(queues)] if queues else []))
        return socket

    def remove(self, volume):
        self.ctl("export", "remove", f"tank/{volume}")
        self.ctl("volume", "delete", f"tank/{volume}", "--yes")

    def stat(self):
        return json.loads(self.ctl("--json", "stat"))

    def written(self):
        stat = self.stat()
        return (
            sum(disk["write"]["bytes"] for disk in stat["disks"]),
            sum(volume["write"]["bytes"] for volume in stat["volumes"]),
        )


class OurVolume(Server):
    """A volume of a Pool."""

    keep = True

    def __init__(self, pool, volume, name, kind, medium, size_bytes=None, **export):
        super().__init__(pool.bench, name, kind, medium)
        self.pool, self.volume, self.export = pool, volume, export
        self.size_bytes = size_bytes or pool.bench.volume_bytes

    @property
    def pid(self):
        return self.pool.process.pid if self.pool.process else None

    def start(self):
        self.socket = self.pool.add(
            self.volume, self.size_bytes, "--nbd" if self.kind == "nbd" else "--vhost-user", **self.export
        )

    def stop(self):
        pass

    def written(self):
        return self.pool.written()


def poold_has_nbd(bench):
    return "--nbd" in run(f"{bench.scratch}/poolctl", "help", "export", "add")


# ---- peers ----


class Qsd(Server):
    """qemu-storage-daemon with an I/O thread."""

    def __init__(self, bench, image_format, aio, path, medium):
        super().__init__(bench, f"qemu-storage-daemon {image_format} {aio}", "vhost", medium)
        self.format, self.aio, self.path = image_format, aio, path

    def start(self):
        self.launch([
            "qemu-storage-daemon", "--object", "iothread,id=io0",
            "--blockdev",
            f"driver=file,node-name=file,filename={self.path},cache.direct=on,aio={self.aio},locking=off",
            "--blockdev", f"driver={self.format},node-name=disk,file=file,cache.direct=on",
            "--export",
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=4,iothread=io0,"
            f"addr.type=unix,addr.path={self.socket}",
        ])  # fmt: skip


class QemuNbd(Server):
    def __init__(self, bench, image_format, aio, path, medium):
        super().__init__(bench, f"qemu-nbd {image_format} {aio}", "nbd", medium)
        self.format, self.aio, self.path = image_format, aio, path

    def start(self):
        self.launch([
            "qemu-nbd", "--persistent", "--shared=8", f"--socket={self.socket}", "--image-opts",
            f"driver={self.format},cache.direct=on,file.driver=file,file.filename={self.path},"
            f"file.cache.direct=on,file.aio={self.aio},file.locking=off",
        ])  # fmt: skip


class Nbdkit(Server):
    def __init__(self, bench, plugin, medium, *words, keep=False):
        super().__init__(bench, f"nbdkit {plugin}", "nbd", medium)
        self.words = [plugin, *words]
        self.keep = keep

    def start(self):
        self.launch(["nbdkit", "--foreground", "--unix", self.socket, *self.words])


class RawFile(Server):
    """No server: fio on the file itself, O_DIRECT."""

    def __init__(self, bench, engine, path, medium):
        super().__init__(bench, f"fio {engine}", "raw", medium)
        self.engine, self.path = engine, path

    def fio_options(self):
        return [f"--ioengine={self.engine}", f"--filename={self.path}", "--direct=1"]
