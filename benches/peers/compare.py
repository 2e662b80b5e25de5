"""Runs the peer and `dor` alternately on the same files; see scripts/bench-convert.sh."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median


def run(command: list[str]) -> tuple[float, int, str]:
    """Seconds, peak memory of the process itself in bytes, and its standard output."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}")
    return seconds, usage.ru_maxrss * 1024, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dor", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()

    history = next(options.folder.joinpath("raw").rglob("ocn/hist"))
    archive, workers = str(history.parents[2]), str(options.workers)
    grid = str(next(options.folder.joinpath("raw").rglob("grid.nc")))
    files = sorted(history.glob("*.nc"))
    size_in = sum(file.stat().st_size for file in files)
    output = options.folder / "output"
    case = [options.dor, "research-data", "process-case", "112-04", "--allow-missing"]
    peer = [sys.executable, str(Path(__file__).with_name("convert_peer.py")), archive, str(output)]
    commands = {
        "peer": [*peer, "--grid", grid, "--workers", workers],
        "dor": [*case, "-d", archive, "-o", str(output), "--grid", grid, "-w", workers],
    }

    results: dict[str, list[tuple[float, int, int]]] = {name: [] for name in commands}
    for turn in range(options.runs):
        for name, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            # No run pays for flushing what the one before wrote, and all find their input cached.
            os.sync()
            for file in files:
                file.read_bytes()
            seconds, memory, text = run(command)
            if name == "peer":
                # Without the start of Python and its imports: in the peer's favour.
                report = json.loads(text)
                seconds, memory = report["seconds"], report["peak_rss_of_largest_child"]
            made = list(output.rglob("*.nc"))
            if len(made) != len(files):
                sys.exit(f"{name} wrote {len(made)} files of {len(files)}")
            results[name].append((seconds, memory, sum(file.stat().st_size for file in made)))
            print(f"run {turn + 1} {name}: {seconds:.1f} s", file=sys.stderr)
    shutil.rmtree(output, ignore_errors=True)

    print(
        f"{len(files)} files, {size_in / 1e6:.0f} MB, {workers} workers, {options.runs} runs each"
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{'':8}{'median s':>10}{'min s':>8}{'max s':>8}{'MB/s in':>9}{'peak MB':>9}{'MB out':>9}"
    )
    medians = {}
    for name, rows in results.items():
        seconds = [row[0] for row in rows]
        memory, size = max(row[1] for row in rows), rows[-1][2]
        medians[name] = (median(seconds), memory, size)
        rate = size_in / 1e6 / median(seconds)
        spread = f"{median(seconds):10.1f}{min(seconds):8.1f}{max(seconds):8.1f}"
        print(f"{name:8}{spread}{rate:9.0f}{memory / 1e6:9.0f}{size / 1e6:9.0f}")
    faster = medians["peer"][0] / medians["dor"][0]
    larger = medians["dor"][2] / medians["peer"][2]
    print(f"dor is {faster:.2f} times as fast; its output is {larger:.4f} of the peer's size")


if __name__ == "__main__":
    main()
