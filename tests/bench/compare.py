"""make bench: ours against its peers, in the same run, by the same clients.

Every round gives each server its turn, and in its turn each workload; a figure is the median of the rounds, a ratio the
median of the ratios within the rounds. How much of the time server or client had to wait for a core that others used is
measured with everything else: rounds where that is much do not count if there are others, and if there are none the run
says that its figures are worth little.
"""

import os
import statistics
import subprocess
import time

from measure import DISTURBED, MeasureError, measure, run_fio
from servers import Nbdkit, OurVolume, Pool, Qsd, QemuNbd, RawFile, poold_has_nbd, run

POOL_FACTOR = 4  # size of a pool's disk in sizes of its volume
WARM_S = 0.2
FIO_OVERHEAD_S = 0.6  # of a measurement: starting, connecting, ending
RUN_S_MIN, RUN_S_MAX = 0.4, 2.0

# In this order: sequential reads meet what sequential writes left, aged ones what random writes left.
MEMORY_WORKLOADS = [
    "write-128k", "read-128k", "randwrite-qd1", "randwrite-qd32", "randread-qd1", "randread-qd32", "read-128k-aged",
]  # fmt: skip
DISK_WORKLOADS = [*MEMORY_WORKLOADS, "write-flush-qd1"]
DISK_WORKLOADS_QUICK = ["randwrite-qd32", "randread-qd32", "write-flush-qd1"]
NBD_WORKLOADS = ["write-128k", "read-128k", "randwrite-qd1", "randwrite-qd32", "randread-qd1", "randread-qd32"]
NBD_WORKLOADS_QUICK = ["randwrite-qd32", "randread-qd32"]


def say(text):
    print(text, flush=True)


class Group:
    """Servers that are compared with each other."""

    def __init__(self, key, title, workloads):
        self.key, self.title, self.workloads = key, title, workloads
        self.servers = []
        self.cells = {}  # (server's name, workload): [measurement of each round]

    def rounds(self, *names, workload):
        """Measurements of these servers, of the same rounds each; of undisturbed rounds alone if there are any."""
        cells = [self.cells.get((name, workload), []) for name in names]
        whole = [together for together in zip(*cells) if all(together)]
        calm = [together for together in whole if all(cell["waited"] < DISTURBED for cell in together)]
        return calm or whole

    def median(self, name, workload, figure="iops"):
        values = [cell[figure] for (cell,) in self.rounds(name, workload=workload) if cell[figure] is not None]
        return statistics.median(values) if values else None

    def spread(self, name, workload):
        """Half the distance between the best and the worst round, as a share of the median."""
        values = [cell["iops"] for (cell,) in self.rounds(name, workload=workload)]
        return (max(values) - min(values)) / 2 / statistics.median(values) if len(values) > 1 else None

    def ratio(self, name, other, workload):
        """Median of the rounds' ratios."""
        ratios = [ours["iops"] / theirs["iops"] for ours, theirs in self.rounds(name, other, workload=workload)]
        return statistics.median(ratios) if ratios else None

    def best(self, names, workload):
        """The fastest of some servers."""
        known = [(self.median(name, workload), name) for name in names if self.median(name, workload)]
        return max(known)[1] if known else None

    def names(self, part):
        return [server.name for server in self.servers if part in server.name]


# ---- preparing: all data is there before anything is measured ----


def fill_volume(bench, server, pool_bytes):
    """Writes a volume in whole, and then at random until the pool's log has gone round: that is how it will be used."""
    run_fio(bench.machine, ["fio", "--output-format=json", "--name=fill", "--thread", "--rw=write", "--bs=1m",
                            "--iodepth=4", *server.fio_options()], server.medium)  # fmt: skip
    written, _ = server.written()
    left = pool_bytes + pool_bytes // 8 - written
    if left > 0:
        run_fio(bench.machine, ["fio", "--output-format=json", "--name=age", "--thread", "--rw=randwrite", "--bs=64k",
                                "--iodepth=16", "--norandommap", f"--io_size={left}", *server.fio_options()],
                server.medium)  # fmt: skip


def images(bench, folder):
    """Paths of a raw and a qcow2 image of the volume's size, allocated and full of data; made when first asked for."""
    raw, qcow2 = f"{folder}/image.raw", f"{folder}/image.qcow2"
    if not os.path.exists(raw):
        run("dd", "if=/dev/urandom", f"of={raw}", "bs=1M", f"count={bench.volume_bytes >> 20}", "iflag=fullblock",
            "conv=fsync")  # fmt: skip
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
    return raw, qcow2


def make_pool_file(bench):
    """A file that a pool will use as its disk; written, so that the file system has nothing left to allocate."""
    path = f"{bench.disk_dir}/pool.disk"
    run("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={bench.volume_bytes * POOL_FACTOR >> 20}", "conv=fsync",
        "oflag=direct")  # fmt: skip
    return path


def start_pool(bench, name, disk, program="poold"):
    pool = Pool(bench, name, disk, program)
    pool.start()
    return pool


def add_ours(bench, group, pool, volume, name, medium):
    server = OurVolume(pool, volume, name, "vhost" if group.key != "nbd" else "nbd", medium)
    server.start()
    try:
        fill_volume(bench, server, bench.volume_bytes * POOL_FACTOR)
    except MeasureError as error:
        say(f"{name}: {error}: it is left out")
    else:
        group.servers.append(server)


def memory_group(bench, quick):
    group = Group("memory", "memory, vhost-user-blk", MEMORY_WORKLOADS[:-1] if quick else MEMORY_WORKLOADS)
    pool_bytes = bench.volume_bytes * POOL_FACTOR
    pool = start_pool(bench, "pool-ram", f"ram:{pool_bytes}")
    add_ours(bench, group, pool, "v", "poold", "ram")
    if os.path.exists(f"{bench.scratch}/poold-nosum"):
        bare = start_pool(bench, "pool-nosum", f"ram:{pool_bytes}", "poold-nosum")
        add_ours(bench, group, bare, "v", "poold without checksums", "ram")
    raw, qcow2 = images(bench, bench.memory_dir)
    for image_format, aio, path in (("raw", "native", raw), ("raw", "io_uring", raw), ("qcow2", "native", qcow2)):
        group.servers.append(Qsd(bench, image_format, aio, path, "tmpfs"))
    if not quick:
        group.servers.append(Qsd(bench, "qcow2", "io_uring", qcow2, "tmpfs"))
        group.servers += [RawFile(bench, engine, raw, "tmpfs") for engine in ("libaio", "io_uring")]
    return group


def disk_group(bench, quick):
    group = Group("disk", "the real disk, vhost-user-blk", DISK_WORKLOADS_QUICK if quick else DISK_WORKLOADS)
    raw, qcow2 = images(bench, bench.disk_dir)
    pool = start_pool(bench, "pool-disk", make_pool_file(bench))
    add_ours(bench, group, pool, "v", "poold", "disk")
    for image_format, path in (("raw", raw), ("qcow2", qcow2)):
        for aio in ("native",) if quick else ("native", "io_uring"):
            group.servers.append(Qsd(bench, image_format, aio, path, "disk"))
    group.servers += [RawFile(bench, engine, raw, "disk") for engine in ("io_uring", "libaio")]
    return group


def nbd_group(bench, quick):
    group = Group("nbd", "memory, NBD by a Unix socket", NBD_WORKLOADS_QUICK if quick else NBD_WORKLOADS)
    raw, qcow2 = images(bench, bench.memory_dir)
    if poold_has_nbd(bench):
        pool = start_pool(bench, "pool-nbd", f"ram:{bench.volume_bytes * POOL_FACTOR}")
        add_ours(bench, group, pool, "n", "poold", "ram")
    group.servers.append(QemuNbd(bench, "qcow2", "native", qcow2, "tmpfs"))
    if not quick:
        group.servers.append(QemuNbd(bench, "raw", "native", raw, "tmpfs"))
    group.servers.append(Nbdkit(bench, "file", "tmpfs", raw))
    memory = Nbdkit(bench, "memory", "ram", str(bench.volume_bytes), keep=True)
    memory.start()
    run("nbdcopy", raw, f"nbd+unix:///?socket={memory.socket}")
    group.servers.append(memory)
    return group


# ---- measuring ----


def run_turn(bench, group, server, run_s):
    if not server.keep:
        server.start()
    try:
        for workload in group.workloads:
            cells = group.cells.setdefault((server.name, workload), [])
            try:
                cells.append(measure(bench.machine, server, workload, WARM_S, run_s))
            except MeasureError as error:
                say(f"    {server.name}: {workload}: {error}")
                cells.append(None)
    finally:
        if not server.keep:
            server.stop()


def run_rounds(bench, groups, rounds, end_by):
    """Rounds until `rounds` are done; measurements are as long as the time that is left allows."""
    cells = sum(len(group.servers) * len(group.workloads) for group in groups)
    run_s = (end_by - time.monotonic()) / (cells * rounds) - FIO_OVERHEAD_S - WARM_S
    run_s = min(max(run_s, RUN_S_MIN), RUN_S_MAX)
    say(f"{rounds} rounds of {cells} measurements of {run_s:.1f} s")
    for number in range(rounds):
        start = time.monotonic()
        for group in groups:
            for server in group.servers:
                run_turn(bench, group, server, run_s)
        took = time.monotonic() - start
        say(f"  round {number + 1} took {took:.0f} s")
        if time.monotonic() + took * 0.9 > end_by and number + 1 < rounds:
            say(f"  no time for more: {number + 1} of {rounds} rounds")
            break
    return run_s


def write_once(bench, server):
    """Writes each block of a volume once, at random, depth 32. Requests a second."""
    data, _ = run_fio(bench.machine, ["fio", "--output-format=json", "--name=once", "--thread", "--rw=randwrite",
                                      "--bs=4k", "--iodepth=32", "--scramble_buffers=0",
                                      *server.fio_options()])  # fmt: skip
    return data["jobs"][0]["write"]["iops"]


def measure_first_write(bench, rounds):
    """First writes to an empty volume, then overwrites: [(first, over)]. The pool's memory has been touched before."""
    size_bytes = bench.volume_bytes // 2
    pool_bytes = bench.volume_bytes * POOL_FACTOR
    pool = start_pool(bench, "pool-first", f"ram:{pool_bytes}")
    touch = OurVolume(pool, "touch", "touch", "vhost", "ram", size_bytes)
    touch.start()
    fill_volume(bench, touch, pool_bytes)
    pool.remove("touch")
    results = []
    for number in range(rounds):
        server = OurVolume(pool, f"first{number}", "first", "vhost", "ram", size_bytes)
        server.start()
        results.append((write_once(bench, server), write_once(bench, server)))
        pool.remove(server.volume)
    pool.stop()
    return results


def measure_nbdcopy(bench, group, rounds):
    """{server's name: [MB/s]} of copying a full volume out."""
    results = {}
    for _ in range(rounds):
        for server in group.servers:
            if not server.keep:
                server.start()
            start = time.monotonic()
            subprocess.run(
                bench.machine.on_client(["nbdcopy", f"nbd+unix:///?socket={server.socket}", "null:"], server.medium),
                check=True, capture_output=True,
            )  # fmt: skip
            results.setdefault(server.name, []).append(bench.volume_bytes / 1e6 / (time.monotonic() - start))
            if not server.keep:
                server.stop()
    return results
