"""make bench-scale: how the cost of a request grows with what there is of volumes, queues, reactors, size and map.

Each axis has its own pool in memory, and two workloads at each point: 4 KiB random read and write, depth 32 over all. What
matters is the server's CPU time for a request, as two cores leave none for more clients. Reactors are measured by
bench/reactors, which needs no client.
"""

import json
import os
import statistics
import subprocess

import report
from compare import POOL_FACTOR, fill_volume, say
from measure import MeasureError, measure, run_fio
from servers import OurVolume, Pool

WORKLOADS = ("randread-qd32", "randwrite-qd32")
MAP_ENTRIES_PER_NODE = 169
NODE_BYTES = 4096
SPARSE_BLOCKS = 32768  # in each thin volume
VOLUMES_POOL_BYTES_MIN = 4 << 30
WARM_S = 0.2


class OurVolumes(OurVolume):
    """Several volumes of one pool, used by one client in turn."""

    def __init__(self, pool, count, each_bytes):
        super().__init__(pool, "v", f"{count} volumes", "vhost", "ram", each_bytes)
        self.count = count

    def start(self):
        self.sockets = [self.pool.add(f"v{i}", self.size_bytes) for i in range(self.count)]

    def fio_options(self):
        return [f"--ioengine=external:{self.bench.engine}", "--filename=" + ":".join(self.sockets)]


class SparseVolume(OurVolume):
    """A thin volume of which only every so many blocks are ever used."""

    @property
    def spacing_bytes(self):
        return self.size_bytes // SPARSE_BLOCKS

    def fio_options(self):
        return [*super().fio_options(), f"--blockalign={self.spacing_bytes}"]

    def fill(self, pool_bytes):
        common = ["fio", "--output-format=json", "--name=fill", "--thread", "--iodepth=32", *self.fio_options()]
        run_fio(self.bench.machine, [*common, f"--rw=write:{self.spacing_bytes - 4096}", "--bs=4k",
                                     f"--io_size={SPARSE_BLOCKS * 4096}"])  # fmt: skip
        run_fio(self.bench.machine, [*common, "--rw=randwrite", "--bs=4k", "--norandommap", f"--io_size={pool_bytes}"])


class Axis:
    def __init__(self, key, title, head):
        self.key, self.title, self.head = key, title, head
        self.points = []  # {"at": label, "cells": {workload: [rounds]}, "resident_mib": n}

    def median(self, point, workload, figure):
        values = [cell[figure] for cell in point["cells"].get(workload, []) if cell.get(figure) is not None]
        return statistics.median(values) if values else None

    def print(self):
        heads = [self.head, "read IOPS", "p50 us", "p99", "CPU us", "map hits", "write IOPS", "p50 us", "p99", "CPU us",
                 "written", "poold MiB", "CPU read", "CPU write"]  # fmt: skip
        rows = []
        for point in self.points:
            read, write = (
                lambda figure, workload=workload: self.median(point, workload, figure) for workload in WORKLOADS
            )
            growth = [self.growth(point, workload) for workload in WORKLOADS]
            rows.append([
                point["at"], report.number(read("iops")), report.number(read("p50_us"), 1), report.number(read("p99_us"), 1),
                report.number(read("cpu_us"), 2), report.share(read("map_hits")), report.number(write("iops")),
                report.number(write("p50_us"), 1), report.number(write("p99_us"), 1), report.number(write("cpu_us"), 2),
                report.number(write("written_per_byte"), 2), report.number(point.get("resident_mib")),
                report.times(growth[0]), report.times(growth[1]),
            ])  # fmt: skip
        print(f"\n==== {self.title} ====\n\n{report.table(heads, rows)}")

    def growth(self, point, workload):
        """CPU time of a request, in that of the first point."""
        first, here = (self.median(p, workload, "cpu_us") for p in (self.points[0], point))
        return here / first if first and here else None


def map_counts(pool):
    stat = pool.stat()["volumes"]
    return sum(v["map_cache_hits"] for v in stat), sum(v["map_cache_misses"] for v in stat)


def measure_point(bench, axis, at, server, rounds, run_s, extra=()):
    point = {"at": at, "cells": {}}
    for _ in range(rounds):
        for workload in WORKLOADS:
            before = map_counts(server.pool)
            cell = measure(bench.machine, server, workload, WARM_S, run_s, extra)
            hits, misses = (after - b for after, b in zip(map_counts(server.pool), before))
            cell["map_hits"] = hits / (hits + misses) if hits + misses else None
            point["cells"].setdefault(workload, []).append(cell)
    point["resident_mib"] = server.pool.stat()["memory"]["resident_bytes"] >> 20
    axis.points.append(point)
    say(f"  {axis.title}: {at}")


def fresh_pool(bench, name, *flags, size_bytes=None):
    pool = Pool(bench, name, f"ram:{size_bytes or bench.volume_bytes * POOL_FACTOR}", flags=flags)
    pool.start()
    return pool


# ---- axes ----


def volumes_axis(bench, rounds, run_s, quick):
    """The same data in more and more volumes."""
    axis = Axis("volumes", "volumes, of the same size together", "volumes")
    # Each volume has segments of its own open, so the pool is larger than elsewhere.
    pool_bytes = max(2 * POOL_FACTOR * bench.volume_bytes, VOLUMES_POOL_BYTES_MIN)
    for count in (1, 8, 64) if quick else (1, 2, 4, 8, 16, 32, 64):
        pool = fresh_pool(bench, f"volumes{count}", size_bytes=pool_bytes)
        server = OurVolumes(pool, count, bench.volume_bytes // count)
        server.start()
        fill_volume(bench, server, pool_bytes)
        measure_point(bench, axis, str(count), server, rounds, run_s)
        pool.stop()
    return axis


def queues_axis(bench, rounds, run_s, quick):
    axis = Axis("queues", "queues of one volume", "queues")
    pool = fresh_pool(bench, "queues")
    server = OurVolume(pool, "v", "queues", "vhost", "ram", queues=4)
    server.start()
    fill_volume(bench, server, bench.volume_bytes * POOL_FACTOR)
    for count in (1, 2, 4):
        measure_point(bench, axis, str(count), server, rounds, run_s, [f"--queues={count}"])
    pool.stop()
    return axis


def size_axis(bench, rounds, run_s, quick):
    """The same number of blocks with data, strewn over ever larger thin volumes."""
    axis = Axis("size", f"thin volumes, {SPARSE_BLOCKS} blocks with data evenly strewn over each", "size")
    for size_gib in (1, 1024, 16384) if quick else (1, 16, 256, 1024, 4096, 16384):
        pool = fresh_pool(bench, f"size{size_gib}")
        server = SparseVolume(pool, "v", "size", "vhost", "ram", size_gib << 30)
        server.start()
        server.fill(bench.volume_bytes * POOL_FACTOR)
        measure_point(bench, axis, f"{size_gib} GiB", server, rounds, run_s)
        pool.stop()
    return axis


def map_axis(bench, rounds, run_s, quick):
    """Less and less of the map in memory, down to the least that poold takes. Few overlay entries, so that look-ups do go
    to the map."""
    map_bytes = bench.volume_bytes // 4096 * NODE_BYTES * 4 // 3 // MAP_ENTRIES_PER_NODE
    axis = Axis("map", f"map cache, of a map of about {map_bytes >> 10} KiB", "cached")
    for percent in (150, 50, 1) if quick else (150, 75, 50, 25, 10, 1):
        pool = fresh_pool(bench, f"map{percent}", "--map-cache", str(map_bytes * percent // 100), "--overlay-entries", "4096")
        server = OurVolume(pool, "v", "map", "vhost", "ram")
        server.start()
        fill_volume(bench, server, bench.volume_bytes * POOL_FACTOR)
        measure_point(bench, axis, "all" if percent > 100 else f"{percent}%", server, rounds, run_s)
        pool.stop()
    return axis


def reactors_axis(bench, rounds, run_s, quick):
    axis = Axis("reactors", "reactors, a volume on each, no client", "reactors")
    program = f"{os.environ.get('PROGRAMS', bench.build + '/release')}/bench/reactors"
    cores = [str(bench.machine.server_core), str(bench.machine.client_core)]
    for count in (1, 2):
        point = {"at": str(count), "cells": {}}
        for _ in range(rounds):
            command = [program, str(run_s), str(bench.volume_bytes), *cores[:count]]
            done = subprocess.run(
                bench.machine.on_server(command, "ram", ",".join(cores)), capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise MeasureError(f"{program}: {done.stderr.strip()}")
            for line in done.stdout.splitlines():
                cell = json.loads(line)
                point["cells"].setdefault(cell["workload"], []).append(cell)
        axis.points.append(point)
        say(f"  {axis.title}: {count}")
    return axis


def judge_reactors(axis):
    """Two reactors and two volumes, in IOPS of one."""
    verdicts = report.Verdicts()
    for workload in WORKLOADS:
        one, two = (axis.median(point, workload, "iops") for point in axis.points)
        verdicts.add(f"two reactors and two volumes, against one: {workload}", two / one, 1.7)
    verdicts.print()
    return verdicts


def run_scale(bench, quick, out):
    rounds = int(os.environ.get("BENCH_ROUNDS", 1 if quick else 3))
    run_s = 0.6 if quick else 1.5
    say(f"volumes of {bench.volume_bytes >> 20} MiB, pools {POOL_FACTOR} times that; {rounds} rounds")
    makers = {"volumes": volumes_axis, "queues": queues_axis, "reactors": reactors_axis, "size": size_axis, "map": map_axis}
    axes = []
    for key in os.environ.get("BENCH_AXES", " ".join(makers)).split():
        try:
            axes.append(makers[key](bench, rounds, run_s, quick))
        except MeasureError as error:
            say(f"  {key}: {error}: left out")
            bench.end_all()
    for axis in axes:
        axis.print()
    print("\nCPU read, CPU write: the server's CPU time for a request, in that of the first line.")
    verdicts = [judge_reactors(axis) for axis in axes if axis.key == "reactors"]
    report.write_json(f"{out}/scale.json", {
        "machine": report.machine_info(), "volume_bytes": bench.volume_bytes, "run_s": run_s,
        "priority": bench.machine.priority, "figures": verdicts[0].lines if verdicts else [],
        "axes": [{"axis": axis.key, "title": axis.title, "points": axis.points} for axis in axes],
    })  # fmt: skip
