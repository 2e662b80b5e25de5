"""What the peers of the stores have in common: a case's files, and tasks in two workers."""

import re
import resource
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dask
import numpy as np
import xarray as xr

MONTHS = 180
FIRST_YEAR = 347
MONTH_LENGTHS = np.array((31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31))
NAME = re.compile(r"\.pop\.h\.(?P<year>\d{4})-(?P<month>\d{2})\.nc$")


def month_files(folder: Path, polygon: int, start: int) -> dict[int, Path]:
    """Files of the case by elapsed month, 0 to 179, as far as they are there."""
    files = {}
    for path in sorted(folder.glob(f"{polygon:03}/{start:02}/*.nc")):
        if name := NAME.search(path.name):
            year, month = int(name["year"]), int(name["month"])
            files[(year - FIRST_YEAR) * 12 + month - start] = path
    if not files or not set(files) <= set(range(MONTHS)):
        raise SystemExit(f"no files, or files of other years, in {folder}/{polygon:03}/{start:02}")
    return files


def open_files(files: list[Path], names: tuple[str, ...]) -> xr.Dataset:
    """Only the named variables, undecoded: decoding copies each field once more."""
    with xr.open_dataset(files[0], decode_cf=False) as first:
        axes = ("polygon_id", "intervention_date", "elapsed_time")
        other = [name for name in first.variables if name not in (*names, *axes)]
    return xr.open_mfdataset(
        files,
        combine="by_coords",
        coords="minimal",
        data_vars="minimal",
        compat="override",
        join="override",
        drop_variables=other,
        decode_cf=False,
        engine="netcdf4",
    ).isel(polygon_id=0, intervention_date=0)


def fill_to_nan(variable: xr.DataArray) -> np.ndarray:
    values = variable.values.astype("f8")
    values[variable.values == variable.attrs["_FillValue"]] = np.nan
    return values


def bytes_read() -> int | None:
    """Bytes that this process has read so far, from the cache or not; Linux only."""
    try:
        return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])
    except OSError:
        return None


# What a worker holds: dask sends what the main program defines by value, with variables of its own.
held: object = None


def hold(make: Callable, arguments: tuple) -> None:
    global held
    held = make(*arguments)


def make_pool(workers: int, make: Callable, arguments: tuple) -> Executor:
    """Workers that have imported everything, hold what `make` returns, and wait.

    Processes: HDF5 inflates under one lock, so threads would read one after the other (and netCDF4
    crashed when threads opened files).
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), hold, (make, arguments))
    # As many sleepers as workers, or a quick one would take them all and the rest not start.
    list(pool.map(time.sleep, [0.5] * workers))
    return pool


def run_tasks(pool: Executor, arguments: list) -> tuple[list, int | None]:
    """What the held object's `run` returns for each, and bytes read by all workers, if known."""
    tasks = [dask.delayed(run_held, pure=False)(argument) for argument in arguments]
    done = dask.compute(*tasks, scheduler="processes", pool=pool, optimize_graph=False)
    counts = [count for _, count in done]
    return [result for result, _ in done], None if None in counts else sum(counts)


def run_held(argument: object) -> tuple[object, int | None]:
    start = bytes_read()
    # What a task computes with dask it computes itself.
    with dask.config.set(scheduler="synchronous"):
        result = held.run(argument)
    return result, None if start is None else bytes_read() - start


def peak_memory() -> dict[str, int]:
    # Linux counts in KiB; of the largest worker, not of all together.
    return {
        "peak_rss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "peak_rss_of_largest_child": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
