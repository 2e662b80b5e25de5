"""The reference's way of filling the map pyramid (store 2), which `dor` is measured against.

xarray and dask over the research-grade files, numpy for the columns, scipy.sparse for the
regridding, zarr for the template and the chunks. A task is one month of the store, that is the
same month of up to 15 years, which are one chunk: so every file is opened once, no two tasks
share a chunk, and nothing but the task goes from process to process. Prints one line of JSON.

    store2_tuned.py RESEARCH_FOLDER SSH GRID WEIGHTS OUT.zarr [--case 112-04] [--months N]

WEIGHTS is a Zarr store in the layout of xESMF: groups 0, 1, ... with S, row and col. The time
counts neither the start of the workers, their imports and the reading of the weights, nor the
template.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import xarray as xr
import zarr
from numcodecs import Zlib

from research import (
    FIRST_YEAR,
    MONTH_LENGTHS,
    fill_to_nan,
    make_pool,
    month_files,
    open_files,
    peak_memory,
    run_tasks,
)

FILL = 9.969209968386869e36
HALF_WIDTH = 20037508.342789244
POLYGONS, STARTS, YEARS, TILE = 690, (1, 4, 7, 10), 15, 128
VARIABLES = ("DIC_SURF", "DIC", "PH", "FG", "pCO2SURF")
# Of the two-dimensional ones, in the order of VARIABLES: with the intervention, and without.
PAIRS = (("PH", "PH_ALT_CO2"), ("FG_CO2", "FG_ALT_CO2"), ("pCO2SURF", "pCO2SURF_ALT_CO2"))
DIMENSIONS = ("polygon_id", "band", "injection_date", "month", "year", "y", "x")


def write_template(out: Path, levels: int) -> None:
    root = zarr.create_group(out, zarr_format=2)

    def array(path: str, dimensions: tuple, fill: float | None, chunks: tuple, **given) -> None:
        root.create_array(
            path,
            chunks=chunks,
            fill_value=fill,
            compressors=Zlib(level=1),
            attributes={"_ARRAY_DIMENSIONS": list(dimensions)},
            **given,
        )

    for level in range(levels):
        n = TILE * 2**level
        centers = (np.arange(n) + 0.5) * (2 * HALF_WIDTH / n) - HALF_WIDTH
        coordinates = {
            "band": np.array(["delta", "experimental"], "<U12"),
            "polygon_id": np.arange(POLYGONS, dtype="<i4"),
            "injection_date": np.array(STARTS, "<i4"),
            "month": np.arange(1, 13, dtype="<i4"),
            "year": np.arange(1, YEARS + 1, dtype="<i4"),
            "y": -centers.astype("<f4"),
            "x": centers.astype("<f4"),
        }
        shape = tuple(len(coordinates[name]) for name in DIMENSIONS)
        chunks = (1, 1, 1, 1, YEARS, TILE, TILE)
        for name in VARIABLES:
            array(f"{level}/{name}", DIMENSIONS, FILL, chunks, shape=shape, dtype="<f4")
        for name, values in coordinates.items():
            array(f"{level}/{name}", (name,), None, values.shape, data=values)
        elapsed = np.arange(12 * YEARS, dtype="<i4").reshape(YEARS, 12).T.copy()
        array(f"{level}/elapsed_time", ("month", "year"), None, elapsed.shape, data=elapsed)
    pyramid = [
        {"path": str(level), "level": level, "crs": "EPSG:3857", "pixels_per_tile": TILE}
        for level in range(levels)
    ]
    root.attrs["multiscales"] = [{"datasets": pyramid, "type": "reduce", "metadata": {}}]
    root.attrs.update(title="Store 2 of the peer", version="1.0.0")
    zarr.consolidate_metadata(out, zarr_format=2)


def read_weights(path: Path, cells: int) -> scipy.sparse.csr_array:
    """The matrices of all levels below each other, so that a month takes one product."""
    matrices = []
    for level, group in sorted(zarr.open_group(path, mode="r").groups()):
        triples = (group["S"][:], (group["row"][:] - 1, group["col"][:] - 1))
        targets = (TILE * 2 ** int(level)) ** 2
        matrices.append(scipy.sparse.coo_array(triples, shape=(targets, cells)).tocsr())
    return scipy.sparse.vstack(matrices, format="csr")


def ssh_records(path: Path) -> dict[tuple[int, int], int]:
    """Records of the series by model year and month, from the middle of their bounds."""
    with xr.open_dataset(path, decode_times=False) as series:
        middles = series["time_bound"].values.mean(axis=1)
    years, days = np.divmod(middles, 365)
    months = np.searchsorted(np.cumsum(MONTH_LENGTHS), days, side="right") + 1
    return {(int(y), int(m)): i for i, (y, m) in enumerate(zip(years, months, strict=True))}


def columns(step: xr.Dataset, ssh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over depth of the delta and of DIC, level by level so that they stay in the cache."""
    dic, alternative = step["DIC"].values, step["DIC_ALT_CO2"].values
    fill = dic.dtype.type(step["DIC"].attrs["_FillValue"])
    thickness = step["dz"].values.astype("f8") * 0.01
    delta, total = np.zeros(ssh.shape), np.zeros(ssh.shape)
    layer = np.empty(ssh.shape)
    for level, metres in enumerate(thickness):
        height = metres + ssh * 0.01 if level == 0 else metres
        valid = dic[level] != fill
        np.multiply(dic[level], height, out=layer)
        np.add(total, layer, out=total, where=valid)
        np.subtract(dic[level], alternative[level], out=layer, dtype="f8")
        np.multiply(layer, height, out=layer)
        valid &= alternative[level] != fill
        np.add(delta, layer, out=delta, where=valid)
    total[dic[0] == fill] = np.nan
    delta[(dic[0] == fill) | (alternative[0] == fill)] = np.nan
    return delta, total


def fields(step: xr.Dataset, ssh: np.ndarray) -> np.ndarray:
    """[cell, variable and band], in f64, NaN for fill."""
    surface, alternative = (fill_to_nan(step[name].isel(z_t=0)) for name in ("DIC", "DIC_ALT_CO2"))
    maps = [surface - alternative, surface, *columns(step, ssh)]
    for name, counterfactual in PAIRS:
        experimental = fill_to_nan(step[name])
        maps += [experimental - fill_to_nan(step[counterfactual]), experimental]
    return np.stack([values.ravel() for values in maps], axis=1)


class Job:
    """What every worker holds."""

    def __init__(self, out: Path, weights: Path, ssh: Path, case: tuple, shape: tuple) -> None:
        zarr.config.set({"array.write_empty_chunks": True})
        self.case, self.ssh, self.records = case, ssh, ssh_records(ssh)
        self.matrix = read_weights(weights, shape[0] * shape[1])
        self.outside = np.diff(self.matrix.indptr) == 0
        # Unconsolidated, as every key of it is known.
        root = zarr.open_group(out, mode="r+", use_consolidated=False)
        self.levels = [[group[name] for name in VARIABLES] for _, group in sorted(root.groups())]

    def month(self, step: xr.Dataset, ssh: np.ndarray) -> np.ndarray:
        regridded = self.matrix @ fields(step, ssh)
        regridded[self.outside] = np.nan
        return np.where(np.isnan(regridded), FILL, regridded).astype("f4").T

    def run(self, task: tuple[int, dict[int, Path]]) -> None:
        """Month 0 to 11 of the store, all years; years without a file are fill."""
        month, files = task
        polygon, start = self.case
        maps = np.full((2 * len(VARIABLES), YEARS, self.matrix.shape[0]), FILL, "f4")
        if files:
            names = ("dz", "DIC", "DIC_ALT_CO2", *(name for pair in PAIRS for name in pair))
            with (
                open_files(list(files.values()), names) as dataset,
                xr.open_dataset(
                    # Times lie scattered among the records: dear to read, and known already.
                    self.ssh,
                    decode_cf=False,
                    drop_variables=["time", "time_bound"],
                ) as series,
            ):
                # All maps at once, as each load costs dask some 10 ms, but one month of depths.
                deep = dataset[["DIC", "DIC_ALT_CO2"]]
                flat = dataset.drop_vars(list(deep)).load()
                for index, elapsed in enumerate(files):
                    year, calendar = divmod(elapsed + start - 1, 12)
                    record = self.records[FIRST_YEAR + year, calendar + 1]
                    ssh = fill_to_nan(series["SSH"].isel(time=record))
                    depths = deep.isel(elapsed_time=index).load()
                    step = flat.isel(elapsed_time=index).assign(depths.data_vars)
                    maps[:, elapsed // 12] = self.month(step, ssh)
        begin = 0
        for arrays in self.levels:
            n = arrays[0].shape[-1]
            level = maps[:, :, begin : begin + n * n].reshape(-1, 2, YEARS, n, n)
            begin += n * n
            for array, bands in zip(arrays, level, strict=True):
                array[polygon, :, STARTS.index(start), month] = bands


def parse(doc: str) -> tuple[argparse.Namespace, tuple, dict[int, Path], tuple]:
    """Options, polygon and month of the case, its files by elapsed month, the grid's shape."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name in ("research", "ssh", "grid", "weights", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--case", default="112-04", help="polygon and month")
    parser.add_argument("--months", type=int, help="use the first N months only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler", default="threads", help="of dask; the simple peer only")
    options = parser.parse_args()
    case = tuple(int(part) for part in options.case.split("-"))
    files = month_files(options.research, *case)
    files = {n: files[n] for n in sorted(files)[: options.months]}
    with xr.open_dataset(options.grid) as grid:
        shape = grid["TLAT"].shape
    return options, case, files, shape


def main() -> None:
    options, case, files, shape = parse(__doc__)
    shutil.rmtree(options.out, ignore_errors=True)
    begin = time.perf_counter()
    levels = len(list(zarr.open_group(options.weights, mode="r").groups()))
    write_template(options.out, levels)
    template = time.perf_counter() - begin

    held = (options.out, options.weights, options.ssh, case, shape)
    with make_pool(options.workers, Job, held) as pool:
        begin = time.perf_counter()
        months = [(m, {n: files[n] for n in files if n % 12 == m}) for m in range(12)]
        _, count = run_tasks(pool, months)
        seconds = time.perf_counter() - begin
    result = {
        "files": len(files),
        "seconds": round(seconds, 3),
        "seconds_template": round(template, 3),
        "bytes_read": count,
        "bytes_of_files": sum(path.stat().st_size for path in files.values()),
    }
    print(json.dumps(result | peak_memory()))


if __name__ == "__main__":
    main()
