"""Tables, verdicts, JSON and picture of a comparison."""

import json
import os
import platform
import shutil
import statistics
import subprocess

from measure import DISTURBED, TITLES


def number(value, digits=0, unit=""):
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def share(value):
    return "-" if value is None else f"{value * 100:.0f}%"


def times(value):
    return "-" if value is None else f"{value:.2f}x"


def table(heads, rows, left=1):
    """Text with aligned columns: the first ones to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = []
    for row in [heads, *rows]:
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


# ---- tables ----

HEADS = ["", "IOPS", "+-", "MB/s", "p50 us", "p99", "p99.9", "CPU us", "busy", "written", "waited", "poold is"]


def figure_row(group, server, workload, ours):
    median = lambda figure: group.median(server.name, workload, figure)  # noqa: E731
    ratio = None if server.name == ours else group.ratio(ours, server.name, workload)
    return [
        server.name, number(median("iops")), share(group.spread(server.name, workload)), number(median("mb_per_s")),
        number(median("p50_us"), 1), number(median("p99_us"), 1), number(median("p999_us"), 1),
        number(median("cpu_us"), 2), share(median("busy")), number(median("written_per_byte"), 2),
        share(median("waited")), times(ratio),
    ]  # fmt: skip


def print_group(group, ours="poold"):
    print(f"\n==== {group.title} ====")
    for workload in group.workloads:
        rows = [figure_row(group, server, workload, ours) for server in group.servers]
        print(f"\n{TITLES[workload]}")
        print(table(HEADS, rows))


EXPLANATION = """
IOPS, MB/s and latencies are medians of the rounds; +- is half the distance of the best and the worst round. CPU us: of the
server for each request; busy: of one core. written: bytes to disks for each byte of the client. waited: how long server and
client waited for a core that others used; where some rounds were free of that, the others do not count. "poold is 2.00x":
twice the IOPS of this server (median of the rounds' ratios)."""


# ---- verdicts ----


class Verdicts:
    """What is wanted, and what was measured."""

    def __init__(self):
        self.lines = []

    def add(self, what, measured, wanted, note=""):
        holds = None if measured is None else measured >= wanted
        self.lines.append({"figure": what, "measured": measured, "wanted": wanted, "holds": holds, "note": note})

    def against(self, group, workload, others, wanted, what):
        """poold's IOPS against the fastest of others."""
        other = group.best(others, workload) if group else None
        measured = group.ratio("poold", other, workload) if other else None
        self.add(f"{what}: {TITLES[workload]}", measured, wanted, f"against {other}" if other else "")

    def print(self):
        print("\n==== what is wanted, and what was measured ====\n")
        words = {True: "holds", False: "MISSES", None: "not measured"}
        rows = [
            [line["figure"], f">= {line['wanted']:.2f}x", times(line["measured"]), words[line["holds"]], line["note"]]
            for line in self.lines
        ]
        print(table(["figure", "wanted", "measured", "", ""], rows, left=5))


def judge(groups, first_writes, copies):
    verdicts = Verdicts()
    memory, disk, nbd = (groups.get(key) for key in ("memory", "disk", "nbd"))
    if memory:
        for workload in ("randread-qd32", "randwrite-qd32"):
            verdicts.against(memory, workload, memory.names("qcow2"), 2.0, "qcow2 on tmpfs")
            verdicts.against(memory, workload, memory.names("raw native"), 1.3, "raw/native on tmpfs")
        for workload in ("randread-qd1", "randwrite-qd1"):
            verdicts.against(memory, workload, memory.names("raw native"), 1.2, "raw/native on tmpfs")
        for workload in ("read-128k", "write-128k"):
            verdicts.against(memory, workload, memory.names("raw native"), 1.0, "raw/native on tmpfs")
        for workload in ("randread-qd32", "randwrite-qd32", "read-128k", "write-128k"):
            verdicts.against(memory, workload, memory.names("without checksums"), 0.9, "poold without checksums")
    if disk:
        for workload, wanted in (("randwrite-qd32", 2.0), ("randread-qd32", 0.9), ("write-flush-qd1", 0.8)):
            verdicts.against(disk, workload, ["fio io_uring"], wanted, "raw io_uring on the disk")
    if first_writes:
        ratio = statistics.median(first / over for first, over in first_writes)
        verdicts.add("first write to an empty volume, against overwrite", ratio, 0.9)
    if nbd:
        for workload in ("randread-qd32", "randwrite-qd32"):
            verdicts.against(nbd, workload, nbd.names("qemu-nbd qcow2"), 2.0, "NBD: qemu-nbd qcow2")
            verdicts.against(nbd, workload, nbd.names("nbdkit file"), 1.0, "NBD: nbdkit file")
    if copies and "poold" in copies:
        best = max(statistics.median(values) for name, values in copies.items() if name.startswith("nbdkit"))
        verdicts.add("nbdcopy of a full volume, against nbdkit", statistics.median(copies["poold"]) / best, 0.8)
    return verdicts


def warn_if_disturbed(groups):
    waits = [cell["waited"] for group in groups for cells in group.cells.values() for cell in cells if cell]
    if waits and statistics.median(waits) > DISTURBED:
        print(f"\nThe machine is busy: server and client waited {share(statistics.median(waits))} of the time for a core. "
              "Do not believe these figures; see BENCH_PRIORITY in tests/bench/run.sh.")  # fmt: skip


# ---- JSON and picture ----


def machine_info():
    def first_line(*words):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).splitlines()[0] if done.stdout or done.stderr else ""

    with open("/proc/cpuinfo", encoding="ascii") as file:
        model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return {
        "kernel": platform.release(),
        "cpu": model,
        "fio": first_line("fio", "--version"),
        "qemu": first_line("qemu-storage-daemon", "--version"),
        "nbdkit": first_line("nbdkit", "--version"),
    }


def group_json(group):
    return [
        {"group": group.key, "server": server.name, "kind": server.kind, "medium": server.medium, "workload": workload,
         "ratio": group.ratio("poold", server.name, workload), "rounds": group.cells.get((server.name, workload), [])}
        for server in group.servers for workload in group.workloads
    ]  # fmt: skip


def write_json(path, document):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump(document, file, indent=1)
    os.replace(path + ".new", path)
    print(f"\n{path}")


def plot_data(group):
    """One block of lines, server and IOPS in thousands, for each workload."""
    lines = []
    for workload in group.workloads:
        for server in group.servers:
            iops = group.median(server.name, workload)
            if iops is not None:
                low_high = [cell["iops"] / 1e3 for cell in group.cells[(server.name, workload)] if cell]
                lines.append(f'"{server.name}" {iops / 1e3:.3f} {min(low_high):.3f} {max(low_high):.3f}')
        lines += ["", ""]
    return "\n".join(lines)


def draw(path, groups):
    """A picture: a panel for each group and workload, bars of IOPS with the range of the rounds."""
    if not shutil.which("gnuplot"):
        print("no picture: gnuplot is not installed")
        return
    columns = max(len(group.workloads) for group in groups)
    script = [
        f'set terminal svg size {columns * 330},{len(groups) * 420} font "sans,11" background "white"',
        f'set output "{path}"', f"set multiplot layout {len(groups)},{columns}", "unset key", "set yrange [0:*]",
        "set style fill solid 0.8", "set boxwidth 0.7", "set xtics rotate by -50 nomirror scale 0", "set grid y",
        "set bmargin 10", 'set ylabel "thousand requests a second"',
    ]  # fmt: skip
    for row, group in enumerate(groups):
        script.append(f"$group{row} << END\n{plot_data(group)}\nEND")
    for row, group in enumerate(groups):
        for column in range(columns):
            if column >= len(group.workloads):
                script.append("set multiplot next")
                continue
            script.append(f'set title "{TITLES[group.workloads[column]]}\\n{group.title}"')
            block = f"$group{row} index {column}"
            script.append(
                f"plot {block} using 0:2:($0 == 0 ? 0x2060a0 : 0xa0a0a0):xtic(1) with boxes lc rgb variable, "
                f"{block} using 0:2:3:4 with yerrorbars lc rgb 'black' pt 0"
            )
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=False)
    print(path)
