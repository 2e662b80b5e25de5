"""xarray: single files, and all 180 as one dataset with the call that the contract names."""

import numpy as np
import xarray as xr
from support.contract import elapsed_days, is_data, open_bits
from support.program import POLYGON


def open_all(case, **options) -> xr.Dataset:
    files = str(case.folder() / "*.nc")
    return xr.open_mfdataset(
        files,
        combine="by_coords",
        coords="minimal",
        data_vars="minimal",
        compat="override",
        **options,
    )


def test_the_models_fields_are_data_and_all_else_is_coordinates(case):
    for month in case.samples():
        with open_bits(case.raw(month)) as raw:
            fields = {name for name, variable in raw.variables.items() if is_data(variable)}
        with xr.open_dataset(case.research(month)) as dataset:
            assert set(dataset.data_vars) == fields
            assert {"TLONG", "TLAT", "KMT", "area_m2", "time", "time_delta"} <= set(dataset.coords)


def test_times_decode(case):
    with xr.open_dataset(case.research(case.months[0])) as dataset:
        start = dataset["intervention_date"].item()
        assert (start.year, start.month, start.day) == (1999, 4, 1)
        middle = dataset["time"].item()
        assert (middle.year, middle.month, middle.day) == (347, 4, 16)


def test_180_files_are_one_dataset(case):
    with open_all(case, decode_timedelta=False) as dataset:
        assert dataset.sizes["elapsed_time"] == 180
        wanted = [elapsed_days(month) for month in case.months]
        assert dataset["elapsed_time"].values.tolist() == wanted
        assert dataset["polygon_id"].values.tolist() == [POLYGON]
        assert dataset.sizes["intervention_date"] == 1
        assert np.isfinite(dataset["TLAT"].values).all()
        assert np.isfinite(dataset["TLONG"].values).all()


def test_lengths_of_months_vary_when_files_are_joined(case):
    with open_all(case, decode_timedelta=False) as dataset:
        lengths = dataset["time_delta"]
        assert lengths.dims == ("elapsed_time",)
        assert lengths.values[:11].tolist() == [30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28]


def test_joined_values_are_the_models(case):
    with open_all(case) as dataset:
        for step in (0, 1, 90, 179):
            with xr.open_dataset(case.raw(case.months[step]), decode_times=False) as raw:
                for name in ("DIC", "FG_CO2", "DIC_FLUX"):
                    made = dataset[name].isel(elapsed_time=step).values.reshape(raw[name].shape)
                    assert np.isfinite(made).any(), (step, name)
                    assert np.array_equal(made, raw[name].values, equal_nan=True), (step, name)


def test_a_plain_open_mfdataset_warns_of_nothing_that_is_ours(case, recwarn):
    with open_all(case) as dataset:
        dataset["FG_CO2"].isel(elapsed_time=0).load()
    ours = [str(w.message) for w in recwarn if "FillValue" in str(w.message)]
    assert not ours
