"""The efficiency (store 1) and the uptake (store 3) as one would first write them in Python.

xarray opens the case with open_mfdataset; all sums are one lazy dask graph. series_tuned.py does
the same with dask kept out of the way. Prints one line of JSON; the series go to OUT.

    series_dask.py RESEARCH_FOLDER GRID CENTERS_CSV POLYGON MONTH OUT.json

The time counts neither imports nor the distances.
"""

import time

import dask
import numpy as np
import xarray as xr
from series_tuned import NAMES, RADII, Case

from research import bytes_read, open_files


def sums(case: xr.Dataset, distance: np.ndarray) -> np.ndarray:
    """Rows of uptake by the sea, flux of DIC, uptake within each radius, and everywhere."""
    area, away = case["TAREA"], xr.DataArray(distance, dims=("nlat", "nlon"))
    uptake = (case["FG_CO2"].astype("f8") - case["FG_ALT_CO2"]) * area
    rings = [uptake.where((away > 0) & (away <= radius)) for radius in RADII]
    fields = [uptake.where(case["KMT"] > 0), case["DIC_FLUX"].astype("f8") * area, *rings, uptake]
    totals = [field.sum(("nlat", "nlon")) for field in fields]
    return xr.concat(totals, "column").transpose("elapsed_time", "column").values


def main() -> None:
    case = Case(__doc__)
    before = bytes_read()
    begin = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=case.workers):
        dataset = xr.decode_cf(open_files(case.files, NAMES), decode_times=False)
        case.write(sums(dataset, case.distance))
    seconds = time.perf_counter() - begin
    case.report(seconds, None if before is None else bytes_read() - before)


if __name__ == "__main__":
    main()
