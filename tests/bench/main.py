"""The programs behind run.sh: `main.py compare` and `main.py scale`. Folders come from the environment, see run.sh."""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import time

import compare
import report
import scale
from measure import Machine, MeasureError
from servers import Bench

QUICK_S = 165
FULL_S = 1150


def available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))


def choose_volume_bytes(quick):
    """Beyond any cache, and 16 times in memory with room to spare."""
    wanted = int(os.environ.get("BENCH_VOLUME_MIB", 256 if quick else 768)) << 20
    while wanted * 16 > available_bytes() * 3 // 4 and wanted > 64 << 20:
        wanted //= 2
    return wanted


def copy_programs(programs, scratch):
    """The programs as they are now: a build in between must not change what is measured."""
    for name in ("poold", "poolctl", "bench/poold-nosum"):
        if os.path.exists(f"{programs}/{name}"):
            shutil.copy2(f"{programs}/{name}", f"{scratch}/{os.path.basename(name)}")


def open_bench(quick):
    build = os.environ.get("BUILD", "build")
    memory_dir = tempfile.mkdtemp(prefix="bench.", dir=os.environ.get("BENCH_MEMORY_DIR", "/dev/shm"))
    os.makedirs(f"{build}/bench", exist_ok=True)
    disk_dir = tempfile.mkdtemp(prefix="disk.", dir=os.environ.get("BENCH_DISK_DIR", f"{build}/bench"))
    scratch = tempfile.mkdtemp(prefix="bench.")
    bench = Bench(Machine(), build, scratch, memory_dir, disk_dir, choose_volume_bytes(quick))

    def clean():
        bench.end_all()
        for folder in (memory_dir, disk_dir, scratch):
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clean)
    copy_programs(os.environ.get("PROGRAMS", f"{build}/release"), scratch)
    return bench


def run_compare(bench, quick, out):
    end_by = time.monotonic() + (QUICK_S if quick else FULL_S)
    rounds = int(os.environ.get("BENCH_ROUNDS", 2 if quick else 3))
    only = os.environ.get("BENCH_GROUPS", "memory disk nbd").split()
    print(f"volumes of {bench.volume_bytes >> 20} MiB, pools {compare.POOL_FACTOR} times that; preparing", flush=True)
    makers = {"memory": compare.memory_group, "disk": compare.disk_group, "nbd": compare.nbd_group}
    groups = {key: makers[key](bench, quick) for key in only}
    first_s = 12 if quick else 40
    run_s = compare.run_rounds(bench, list(groups.values()), rounds, end_by - first_s)
    copies = compare.measure_nbdcopy(bench, groups["nbd"], rounds + 1) if "nbd" in groups else {}
    bench.end_all()
    first_writes = compare.measure_first_write(bench, rounds + 1) if "memory" in groups else []

    for group in groups.values():
        report.print_group(group)
    print(report.EXPLANATION)
    verdicts = report.judge(groups, first_writes, copies)
    report.write_json(f"{out}/results.json", {
        "machine": report.machine_info(), "volume_bytes": bench.volume_bytes, "run_s": run_s,
        "priority": bench.machine.priority, "figures": verdicts.lines,
        "first_write_iops": [{"first": first, "over": over} for first, over in first_writes],
        "nbdcopy_mb_per_s": copies,
        "cells": [cell for group in groups.values() for cell in report.group_json(group)],
    })  # fmt: skip
    report.draw(f"{out}/results.svg", list(groups.values()))
    report.warn_if_disturbed(groups.values())
    verdicts.print()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    quick = os.environ.get("QUICK", "") not in ("", "0")
    out = f"{os.environ.get('BUILD', 'build')}/bench"
    start = time.monotonic()
    try:
        bench = open_bench(quick)
        {"compare": run_compare, "scale": scale.run_scale}[sys.argv[1]](bench, quick, out)
    except (MeasureError, KeyboardInterrupt) as error:
        sys.exit(f"bench: {error or 'interrupted'}")
    print(f"\ntook {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
