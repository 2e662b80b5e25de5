"""What xarray makes of a store, as JSON. Run by the Pythons of several zarr-python versions.

python zarr_reader.py STORE GROUP SELECTION-JSON      (an index by dimension)
"""

import base64
import json
import sys

import numpy as np
import xarray as xr
import zarr


def described(variable: xr.DataArray) -> dict:
    kind = "string" if variable.dtype.kind in "OTU" else str(variable.dtype)
    return {"dims": list(variable.dims), "dtype": kind}


def with_values(variable: xr.DataArray) -> dict:
    return described(variable) | {"values": variable.values.tolist()}


def with_bytes(variable: xr.DataArray, place: dict) -> dict:
    values = np.ascontiguousarray(variable.isel(place).values)
    encoded = base64.b64encode(values.tobytes()).decode()
    return described(variable) | {"shape": list(values.shape), "bytes": encoded}


def main(store: str, group: str, selection: str) -> None:
    dataset = xr.open_zarr(store, group=group or None, chunks=None, consolidated=True)
    place = json.loads(selection)
    # A coordinate with more than one dimension is data to xarray unless the store says otherwise.
    small = {name: dataset[name] for name in dataset.variables if dataset[name].ndim <= 2}
    large = {name: array for name, array in dataset.data_vars.items() if name not in small}
    answer = {
        "zarr": zarr.__version__,
        "sizes": dict(dataset.sizes),
        "attributes": dataset.attrs,
        "indexes": sorted(dataset.indexes),
        "coordinates": {name: with_values(array) for name, array in small.items()},
        "data": {name: with_bytes(array, place) for name, array in large.items()},
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
