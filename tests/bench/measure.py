"""One measurement: fio against a server for a given time, and what that cost the server.

A measurement is one fio process with two jobs after each other: a warm-up and the one that counts. What the server spent
is read before and after the process and divided by the requests of both jobs, so nothing is left out. All times of fio
are of the second job only.
"""

import ctypes
import json
import os
import resource
import subprocess
import time

FIO_TIMEOUT_S = 60
SAMPLE_S = 0.05
DISTURBED = 0.10  # share of the time spent waiting for a core, from which a figure says little
LINUX_CPUCLOCK_SCHED = 2

# name: (fio's rw, block size, depth, more options)
WORKLOADS = {
    "randread-qd1": ("randread", 4096, 1, []),
    "randwrite-qd1": ("randwrite", 4096, 1, []),
    "randread-qd32": ("randread", 4096, 32, []),
    "randwrite-qd32": ("randwrite", 4096, 32, []),
    "write-128k": ("write", 131072, 8, []),
    "read-128k": ("read", 131072, 8, []),
    "read-128k-aged": ("read", 131072, 8, []),
    "write-flush-qd1": ("randwrite", 4096, 1, ["--fdatasync=1"]),
}

TITLES = {
    "randread-qd1": "4 KiB random read, depth 1",
    "randwrite-qd1": "4 KiB random write, depth 1",
    "randread-qd32": "4 KiB random read, depth 32",
    "randwrite-qd32": "4 KiB random write, depth 32",
    "write-128k": "128 KiB sequential write, depth 8",
    "read-128k": "128 KiB sequential read, depth 8",
    "read-128k-aged": "128 KiB sequential read, depth 8, of what was overwritten in 4 KiB blocks at random",
    "write-flush-qd1": "4 KiB random write, each followed by a flush, depth 1",
}


class MeasureError(Exception):
    pass


class Machine:
    """Where things run: the server on one core, the client on the other."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise MeasureError("two cores are needed: one for the server, one for the client")
        self.client_core, self.server_core = cores[0], cores[1]
        # For a machine that others use too, see run.sh. The default is what a quiet machine wants.
        self.priority = os.environ.get("BENCH_PRIORITY", "none")
        if self.priority.startswith("rt"):
            # We must get to look at the clocks of those who keep both cores busy.
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))

    def prefix(self, cores, medium):
        """With "rt", not where the kernel's own threads have to finish a disk's I/O: we would keep them from it."""
        realtime = self.priority == "rt-all" or (self.priority == "rt" and medium != "disk")
        return ["taskset", "-c", cores, "chrt", *(["-r", "1"] if realtime else ["-o", "0"])]

    def on_server(self, command, medium, cores=None):
        return self.prefix(cores or str(self.server_core), medium) + command

    def on_client(self, command, medium):
        return self.prefix(str(self.client_core), medium) + command


def cpu_ns(pid):
    """CPU time of a process with all of its threads, also ended ones."""
    try:
        return time.clock_gettime_ns(ctypes.c_int32((~pid << 3) | LINUX_CPUCLOCK_SCHED).value)
    except OSError as error:
        raise MeasureError(f"the server (pid {pid}) has ended") from error


def threads_of(pid):
    """{thread: (ns on a core, ns waiting for one)}."""
    threads = {}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                ran, waited = file.read().split()[:2]
            threads[task] = (int(ran), int(waited))
    except OSError:
        pass  # it has just ended
    return threads


def wait_of_busiest(after, before):
    """How long the thread that ran most was kept waiting, in ns. Others may wait for that one by right."""
    spent = []
    for task, (ran, waited) in after.items():
        ran_before, waited_before = before.get(task, (0, 0))
        spent.append((ran - ran_before, waited - waited_before))
    return max(spent)[1] if spent else 0


def disk_bytes_written(pid):
    """Bytes that a process has caused to be written to block devices."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        for line in file:
            name, value = line.split(":")
            if name == "write_bytes":
                return int(value)
    return 0


def fio_command(server, workload, warm_s, run_s, extra):
    rw, bs_bytes, depth, options = WORKLOADS[workload]
    common = [
        f"--rw={rw}", f"--bs={bs_bytes}", f"--iodepth={depth}", "--time_based", "--thread", "--norandommap",
        "--randrepeat=0", "--scramble_buffers=0", "--lat_percentiles=1", "--clat_percentiles=0",
        "--percentile_list=50:99:99.9", "--group_reporting=0", *options, *server.fio_options(), *extra,
    ]
    return [
        "fio", "--output-format=json", *common, "--name=warm", f"--runtime={int(warm_s * 1000)}ms",
        "--name=run", "--stonewall", f"--runtime={int(run_s * 1000)}ms",
    ]


def run_fio(machine, command, medium="ram"):
    """Its JSON, and how long it was kept waiting for a core."""
    threads = {}
    with subprocess.Popen(
        machine.on_client(command, medium), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + FIO_TIMEOUT_S
        while True:
            threads.update(threads_of(process.pid))
            try:
                out, err = process.communicate(timeout=SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    process.kill()
                    raise MeasureError("fio did not end: " + " ".join(command)) from None
    start = out.find("{")
    if process.returncode != 0 or start < 0:
        raise MeasureError(f"fio failed: {(err + out[:2000]).strip()}\n  {' '.join(command)}")
    return json.loads(out[start:]), wait_of_busiest(threads, {})


class Costs:
    """What a server has spent so far."""

    def __init__(self, server):
        self.time_ns = time.monotonic_ns()
        self.cpu_ns = cpu_ns(server.pid) if server.pid else 0
        self.threads = threads_of(server.pid) if server.pid else {}
        self.written = server.written()  # (bytes to disks, bytes from clients); either may be None


def written_per_byte(before, after, client_bytes):
    if before.written is None or client_bytes == 0:
        return None
    disk = after.written[0] - before.written[0]
    client = client_bytes if after.written[1] is None else after.written[1] - before.written[1]
    return disk / client if client else None


def measure(machine, server, workload, warm_s, run_s, extra=()):
    """One cell of a table, as a dictionary."""
    rw, bs_bytes, depth, _ = WORKLOADS[workload]
    before = Costs(server)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = fio_command(server, workload, warm_s, run_s, extra)
    data, client_waited = run_fio(machine, command, server.medium)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = Costs(server)
    jobs = data["jobs"]
    failed = [job["error"] for job in jobs if job["error"]]
    if failed:
        raise MeasureError(f"{server.name}: {workload}: fio's error {failed[0]}")
    direction = "write" if "write" in rw else "read"
    run = jobs[1][direction]
    requests = sum(job[direction]["total_ios"] for job in jobs)
    if requests == 0:
        raise MeasureError(f"{server.name}: {workload}: no request was completed")
    percentile = run["lat_ns"]["percentile"]
    active_s = (jobs[0]["job_runtime"] + jobs[1]["job_runtime"]) / 1000
    cpu_s = (after.cpu_ns - before.cpu_ns) / 1e9
    return {
        "iops": run["iops"],
        "mb_per_s": run["bw_bytes"] / 1e6,
        "depth": depth,
        "p50_us": percentile["50.000000"] / 1e3,
        "p99_us": percentile["99.000000"] / 1e3,
        "p999_us": percentile["99.900000"] / 1e3,
        "cpu_us": cpu_s * 1e6 / requests if server.pid else None,
        "busy": cpu_s / active_s if server.pid else None,
        "client_cpu_us": (used.ru_utime + used.ru_stime - children.ru_utime - children.ru_stime) * 1e6 / requests,
        "written_per_byte": written_per_byte(before, after, requests * bs_bytes) if direction == "write" else None,
        "waited": (client_waited + wait_of_busiest(after.threads, before.threads)) / 1e9 / active_s,
    }
