"""Runs the peers of the stores and `dor` alternately on the same files.

See scripts/bench-vis.sh.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from compare import run

HERE = Path(__file__).parent
POLYGON, START = 112, 4
CASE = ["-p", str(POLYGON), "--intervention-months", str(START), "--allow-missing"]
CHUNKS, MONTHS = 600, 180


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.dor, self.runs, self.workers = options.dor, options.runs, str(options.workers)
        self.output = options.folder / "output"
        self.research, self.minio = options.research, options.minio
        self.bucket = options.folder / "minio" / "bucket"
        self.files = sorted(options.research.rglob("*.nc"))
        self.grid, self.ssh = str(options.folder / "grid.nc"), str(options.folder / "ssh.nc")
        self.centers = str(options.folder / "centers.csv")
        self.weights = str(options.folder / "weights.zarr")

    def quiet(self, *arguments: str) -> None:
        subprocess.run([self.dor, *arguments], check=True, stdout=subprocess.DEVNULL)

    def settle(self) -> None:
        """No run pays for flushing what the one before wrote; input is cached, if it fits."""
        os.sync()
        for file in self.files:
            file.read_bytes()

    def ours(self, *arguments: str) -> tuple[float, int]:
        seconds, memory, text = run(
            [self.dor, *arguments, *CASE, "-i", str(self.research), "--workers", self.workers]
        )
        print(text.strip(), file=sys.stderr)
        return seconds, memory

    def peer(self, program: str, *arguments: str) -> tuple[float, int]:
        command = [sys.executable, str(HERE / program), str(self.research), *arguments]
        report = json.loads(run([*command, "--workers", self.workers])[2])
        print(f"{program}: {report}", file=sys.stderr)
        # Without the start of Python and its imports: in the peer's favour.
        return report["seconds"], max(report["peak_rss"], report["peak_rss_of_largest_child"])

    def store2(self, store: str, *where: str) -> tuple[float, int]:
        self.quiet("vis", "create-template-store2", "--output-store", store, *where)
        self.settle()
        maps = ["--grid", self.grid, "--ssh", self.ssh, "--weights-store", self.weights]
        return self.ours("vis", "populate-store2", "--output-store", store, *maps, *where)

    def store2_disk(self) -> tuple[float, int]:
        store = self.output / "dor.zarr"
        shutil.rmtree(store, ignore_errors=True)
        return self.store2(str(store))

    def store2_minio(self) -> tuple[float, int]:
        shutil.rmtree(self.bucket / "store", ignore_errors=True)
        where = ["--profile", "minio", "--endpoint-url", self.minio]
        row = self.store2("s3://bucket/store", *where)
        # MinIO keeps an object as a folder of its name.
        objects = len(list(self.bucket.glob(f"store/*/*/{POLYGON}.*.*.*.*.*.*")))
        if objects != CHUNKS:
            sys.exit(f"{objects} chunks in the bucket, not {CHUNKS}")
        return row

    def store2_peer(self, program: str) -> tuple[float, int]:
        self.settle()
        out = str(self.output / "peer.zarr")
        return self.peer(program, self.ssh, self.grid, self.weights, out)

    def series(self) -> tuple[float, int]:
        stores = [str(self.output / f"series{number}.zarr") for number in (1, 3)]
        for number, store in zip((1, 3), stores, strict=True):
            shutil.rmtree(store, ignore_errors=True)
            self.quiet("vis", f"create-template-store{number}", "--output-store", store)
        self.settle()
        into = ["--output-store", stores[1], "--with-store1", stores[0]]
        points = ["--grid", self.grid, "--centers", self.centers]
        row = self.ours("vis", "populate-store3", *into, *points)
        for store in stores:
            self.quiet("vis", "finalize", store)
        return row

    def series_peer(self, program: str) -> tuple[float, int]:
        self.settle()
        case = [str(POLYGON), str(START), str(self.output / "series.json")]
        return self.peer(program, self.grid, self.centers, *case)

    def same_stores(self) -> None:
        stores = [str(self.output / name) for name in ("dor.zarr", "peer.zarr")]
        case = f"{POLYGON}-{START:02}"
        subprocess.run([sys.executable, HERE / "compare_stores.py", *stores, case], check=True)

    def same_series(self) -> None:
        theirs = json.loads((self.output / "series.json").read_text())
        months, name = theirs["elapsed_month"], "FG_CO2_percent_cumulative"
        season = (1, 4, 7, 10).index(START)
        stores = [zarr.open_group(self.output / f"series{n}.zarr", mode="r") for n in (1, 3)]
        efficiency = stores[0]["DOR_efficiency"][:, POLYGON, season][months].astype("f8")
        uptake = stores[1][name][:, POLYGON, season][months].astype("f8")
        relative = abs(efficiency / np.array(theirs["DOR_efficiency"]) - 1).max()
        print(f"efficiencies differ by {relative:.1e}")
        if not relative <= 1e-6:
            sys.exit("the efficiencies are too different")
        if len(months) < MONTHS and (uptake == stores[1][name].fill_value).all():
            print("uptake is not compared: dor has none for a case with months missing")
            return
        points = abs(uptake - np.array(theirs[name])).max()
        print(f"uptakes differ by {points:.1e} percentage points")
        if not points <= 1e-4:
            sys.exit("the uptakes are too different")

    def alternate(self, title: str, programs: dict) -> None:
        rows: dict[str, list[tuple[float, int]]] = {name: [] for name in programs}
        for turn in range(self.runs):
            for name, program in programs.items():
                rows[name].append(program())
                print(f"{title}, run {turn + 1} {name}: {rows[name][-1][0]:.2f} s", file=sys.stderr)
        print(f"\n{title}\n{'':14}{'median s':>10}{'min s':>8}{'max s':>8}{'peak MB':>9}")
        medians = {}
        for name, values in rows.items():
            seconds, memory = [row[0] for row in values], max(row[1] for row in values)
            medians[name] = median(seconds)
            spread = f"{median(seconds):10.2f}{min(seconds):8.2f}{max(seconds):8.2f}"
            print(f"{name:14}{spread}{memory / 1e6:9.0f}")
        for name in medians:
            if name.startswith("peer"):
                print(f"dor is {medians[name] / medians['dor']:.2f} times as fast as the {name}")
        if "dor to MinIO" in medians:
            rate = medians["dor"] / medians["dor to MinIO"]
            print(f"MinIO has {rate:.2f} of the rate of the disk, {CHUNKS} chunks each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dor", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--research", type=Path, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--minio", help="URL of a server with a folder FOLDER/minio")
    options = parser.parse_args()
    bench = Bench(options)
    if not bench.files:
        parser.error(f"no files in {options.research}")
    shutil.rmtree(bench.output, ignore_errors=True)
    bench.output.mkdir(parents=True)

    size = sum(file.stat().st_size for file in bench.files)
    print(f"{len(bench.files)} files, {size / 1e6:.0f} MB, {options.workers} workers")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if not Path(bench.weights).exists():
        seconds, _ = bench.store2_disk()
        print(f"first run of store 2, which computes the weights of all levels: {seconds:.2f} s")

    pyramid = {
        "peer, dask": lambda: bench.store2_peer("store2_dask.py"),
        "peer, tuned": lambda: bench.store2_peer("store2_tuned.py"),
        "dor": bench.store2_disk,
    }
    if options.minio:
        pyramid["dor to MinIO"] = bench.store2_minio
    bench.alternate("store 2", pyramid)
    bench.same_stores()
    series = {
        "peer, dask": lambda: bench.series_peer("series_dask.py"),
        "peer, tuned": lambda: bench.series_peer("series_tuned.py"),
        "dor": bench.series,
    }
    bench.alternate("stores 1 and 3", series)
    bench.same_series()
    shutil.rmtree(bench.output)


if __name__ == "__main__":
    main()
