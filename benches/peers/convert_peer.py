"""The reference's way of making research-grade files, as the peer that `dor` is measured against.

Each raw file is opened with xarray, given the dimensions polygon_id, intervention_date and
elapsed_time, and written as NetCDF-4 with shuffle, zlib level 4 and the chunks of the contract,
by a pool of worker processes. Prints one line of JSON.

    convert_peer.py RAW_FOLDER OUTPUT_FOLDER [--grid FILE] [--workers 2]

RAW_FOLDER is searched for *.pop.h.*.nc of one case.
"""

import argparse
import json
import re
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import xarray as xr

LEADING = ("polygon_id", "intervention_date", "elapsed_time")
CASE = re.compile(r"_(?P<polygon>\d{3})_1999-(?P<month>\d{2})-01_(?P<index>\d{5})\.")
MODEL_YEAR_OF_1999 = 347
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def noleap_day(year: int, month: int) -> int:
    return year * 365 + sum(MONTH_LENGTHS[: month - 1])


def convert(raw: Path, output: Path, grid: Path | None) -> None:
    case = CASE.search(raw.name)
    year, month = (int(part) for part in raw.stem.rsplit(".", 1)[1].split("-"))
    start = int(case["month"])
    # Four cases a polygon: the index counts over polygon, then date.
    polygon = (int(case["index"]) - 1) // 4
    elapsed = noleap_day(year - MODEL_YEAR_OF_1999, month) - noleap_day(0, start)

    # Undecoded, so that the numbers stay what the model wrote.
    dataset = xr.open_dataset(raw, decode_times=False, mask_and_scale=False)
    bounds = dataset["time_bound"].values[0]
    fields = [name for name in dataset.data_vars if "time" in dataset[name].dims]
    fields.remove("time_bound")
    fill = dataset["KMT"].attrs["_FillValue"]
    dataset["KMT"] = dataset["KMT"].where(dataset["KMT"] != fill, 0.0)
    dataset["area_m2"] = dataset["TAREA"].where(
        dataset["TAREA"] == dataset["TAREA"].attrs["_FillValue"], dataset["TAREA"] * 1e-4
    )
    if grid is not None:
        with xr.open_dataset(grid, mask_and_scale=False) as full:
            for name in ("TLONG", "TLAT"):
                dataset[name] = (dataset[name].dims, full[name].values, full[name].attrs)
    dataset["area_m2"].attrs = dataset["TAREA"].attrs | {"units": "m^2"}
    dataset.encoding.pop("unlimited_dims", None)
    dataset = dataset.drop_vars("time_bound").rename_dims(time="elapsed_time")
    dataset = dataset.assign_coords(
        time=(
            "elapsed_time",
            [bounds.mean()],
            {"units": "days since 0000-01-01", "calendar": "noleap"},
        ),
        time_delta=("elapsed_time", [bounds[1] - bounds[0]], {"units": "days"}),
        polygon_id=("polygon_id", np.array([polygon], "i4")),
        intervention_date=(
            "intervention_date",
            np.array([0]),
            {"units": f"days since 1999-{start:02}-01"},
        ),
        elapsed_time=("elapsed_time", np.array([elapsed]), {"units": "days"}),
    )
    for name in fields:
        rest = [d for d in dataset[name].dims if d != "elapsed_time"]
        dataset[name] = dataset[name].expand_dims(LEADING[:2]).transpose(*LEADING, *rest)
    dataset = dataset.set_coords([name for name in dataset.data_vars if name not in fields])

    encoding = {}
    for name, variable in dataset.variables.items():
        encoding[name] = {}
        variable.encoding.clear()
        if variable.dims and variable.dtype.kind == "f":
            encoding[name] = {
                "zlib": True,
                "complevel": 4,
                "shuffle": True,
                "chunksizes": variable.shape,
            }
        if "_FillValue" not in variable.attrs:
            encoding[name]["_FillValue"] = None
    target = (
        output
        / f"{polygon:03}"
        / f"{start:02}"
        / f"smyle.cdr-atlas-v0.glb-dor.{polygon:03}-1999-{start:02}.pop.h.{year:04}-{month:02}.nc"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(target, format="NETCDF4", engine="netcdf4", encoding=encoding)
    dataset.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    files = sorted(options.raw.rglob("*.pop.h.*.nc"))
    if not files:
        parser.error(f"no *.pop.h.*.nc below {options.raw}")

    begin = time.perf_counter()
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(convert, file, options.output, options.grid) for file in files]
        for job in jobs:
            job.result()
    seconds = time.perf_counter() - begin

    written = sum(path.stat().st_size for path in options.output.rglob("*.nc"))
    result = {
        "files": len(files),
        "seconds": round(seconds, 3),
        "bytes_in": sum(path.stat().st_size for path in files),
        "bytes_out": written,
        # Linux counts in KiB; of the largest worker, not of all together.
        "peak_rss_of_largest_child": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
