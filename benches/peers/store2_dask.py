"""The map pyramid (store 2) as one would first write it in Python, which `dor` is measured against.

xarray opens the case with open_mfdataset; the column sums, the product with the weights (scipy)
and the order of the chunks are one lazy dask graph, which to_zarr computes into the region of the
case. store2_tuned.py does the same with dask kept out of the way. Prints one line of JSON.

    store2_dask.py RESEARCH_FOLDER SSH GRID WEIGHTS OUT.zarr [--case 112-04] [--months N]

The time counts neither imports, nor the template, nor the reading of the weights.
"""

import json
import shutil
import time

import dask
import numpy as np
import scipy.sparse
import xarray as xr
import zarr
from store2_tuned import (
    DIMENSIONS,
    FILL,
    PAIRS,
    STARTS,
    TILE,
    VARIABLES,
    YEARS,
    parse,
    read_weights,
    ssh_records,
    write_template,
)

from research import FIRST_YEAR, open_files, peak_memory


def open_case(files: list) -> xr.Dataset:
    names = ("dz", "DIC", "DIC_ALT_CO2", *(name for pair in PAIRS for name in pair))
    return xr.decode_cf(open_files(files, names), decode_times=False)


def sea_surface_height(path, months: list[tuple[int, int]], time_of: xr.DataArray) -> xr.DataArray:
    """Height in cm for each month of the case, on its axis."""
    records = ssh_records(path)
    series = xr.open_dataset(path, decode_times=False, chunks={"time": 1})["SSH"]
    return series.isel(time=[records[month] for month in months]).rename(time=time_of.name)


def maps(case: xr.Dataset, height: xr.DataArray) -> dict[str, xr.DataArray]:
    """Each variable on (band, elapsed_time, nlat, nlon): the difference, and the field itself."""

    def bands(delta: xr.DataArray, field: xr.DataArray) -> xr.DataArray:
        return xr.concat([delta, field], "band")

    dic, alternative = case["DIC"], case["DIC_ALT_CO2"]
    change = dic - alternative
    surface, surface_change = dic.isel(z_t=0), change.isel(z_t=0)
    metres, raised = case["dz"].astype("f8") * 0.01, height.drop_vars(height.coords) * 0.01

    def column(layers: xr.DataArray, top: xr.DataArray) -> xr.DataArray:
        return ((layers * metres).sum("z_t") + top * raised).where(top.notnull())

    result = {
        "DIC_SURF": bands(surface_change, surface),
        "DIC": bands(column(change, surface_change), column(dic, surface)),
    }
    for name, (with_, without) in zip(("PH", "FG", "pCO2SURF"), PAIRS, strict=True):
        result[name] = bands(case[with_] - case[without], case[with_])
    return result


def regrid(field: np.ndarray, matrix: scipy.sparse.csr_array) -> np.ndarray:
    """(..., nlat, nlon) to (..., y, x); NaN outside the source grid."""
    n = int(matrix.shape[0] ** 0.5)
    flat = field.reshape(-1, field.shape[-2] * field.shape[-1]).astype("f8")
    regridded = (matrix @ flat.T).T
    regridded[:, np.diff(matrix.indptr) == 0] = np.nan
    return regridded.astype("f4").reshape(*field.shape[:-2], n, n)


def pyramid_level(fields: dict[str, xr.DataArray], matrix, months: list, polygon: int, season: int):
    """A level as the store has it, for the region of the case."""
    n = int(matrix.shape[0] ** 0.5)
    years, of_year = np.divmod(months, 12)
    level = {}
    for name, field in fields.items():
        regridded = xr.apply_ufunc(
            regrid,
            field,
            kwargs={"matrix": matrix},
            input_core_dims=[["nlat", "nlon"]],
            output_core_dims=[["y", "x"]],
            dask="parallelized",
            output_dtypes=["f4"],
            dask_gufunc_kwargs={"output_sizes": {"y": n, "x": n}},
        )
        axes = {"year": ("elapsed_time", years + 1), "month": ("elapsed_time", of_year + 1)}
        by_year = (
            regridded.drop_vars(list(regridded.coords))
            .assign_coords(axes)
            .set_index(elapsed_time=["month", "year"])
            .unstack("elapsed_time")
            .reindex(month=np.arange(1, 13), year=np.arange(1, YEARS + 1))
        )
        level[name] = by_year.expand_dims(("polygon_id", "injection_date")).transpose(*DIMENSIONS)
    dataset = xr.Dataset(level).drop_vars(["month", "year"])
    chunks = dict.fromkeys(("polygon_id", "band", "injection_date", "month"), 1)
    chunks |= {"year": YEARS, "y": TILE, "x": TILE}
    region = {"polygon_id": slice(polygon, polygon + 1)}
    region |= {"injection_date": slice(season, season + 1)}
    return dataset.fillna(FILL).chunk(chunks), region


def main() -> None:
    options, case, files, shape = parse(__doc__)
    polygon, start = case
    months = [divmod(n + start - 1, 12) for n in files]
    zarr.config.set({"array.write_empty_chunks": True})
    shutil.rmtree(options.out, ignore_errors=True)
    matrix = read_weights(options.weights, shape[0] * shape[1])
    levels = len(list(zarr.open_group(options.weights, mode="r").groups()))
    write_template(options.out, levels)

    begin = time.perf_counter()
    with dask.config.set(scheduler=options.scheduler, num_workers=options.workers):
        dataset = open_case(list(files.values()))
        calendar = [(FIRST_YEAR + year, month + 1) for year, month in months]
        fields = maps(dataset, sea_surface_height(options.ssh, calendar, dataset["elapsed_time"]))
        stores, first = [], 0
        for number in range(levels):
            last = first + (TILE * 2**number) ** 2
            level, region = pyramid_level(
                fields, matrix[first:last], list(files), polygon, STARTS.index(start)
            )
            first = last
            # What the template has already is not written: no attributes, no coordinates.
            for name in VARIABLES:
                level[name].attrs.clear()
                level[name].encoding.clear()
            write = {"region": region, "mode": "r+", "zarr_format": 2, "consolidated": False}
            stores.append(level.to_zarr(options.out, group=str(number), compute=False, **write))
        dask.compute(*stores)
    seconds = time.perf_counter() - begin
    result = {"files": len(files), "seconds": round(seconds, 3)}
    print(json.dumps(result | peak_memory()))


if __name__ == "__main__":
    main()
