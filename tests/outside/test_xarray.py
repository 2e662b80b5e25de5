"""xarray: single research-grade files, and all 180 opened as one dataset."""

import numpy as np
import pytest
import xarray as xr
from support.contract import JOINING, elapsed_days, is_data, open_bits
from support.program import POLYGON


@pytest.fixture(scope="module")
def joined(case):
    """All 180 files as one dataset, opened once because that takes seconds."""
    with xr.open_mfdataset(str(case.folder() / "*.nc"), **JOINING) as dataset:
        yield dataset


def test_model_fields_are_data_variables_and_all_others_coordinates(case):
    for month in case.samples():
        with open_bits(case.raw(month)) as raw:
            fields = {name for name, variable in raw.variables.items() if is_data(variable)}
        with xr.open_dataset(case.research(month)) as dataset:
            assert set(dataset.data_vars) == fields
            assert {"TLONG", "TLAT", "KMT", "area_m2", "time", "time_delta"} <= set(dataset.coords)


def test_times_are_decoded(case):
    with xr.open_dataset(case.research(case.months[0])) as dataset:
        start = dataset["intervention_date"].item()
        assert (start.year, start.month, start.day) == (1999, 4, 1)
        middle = dataset["time"].item()
        assert (middle.year, middle.month, middle.day) == (347, 4, 16)


def test_180_files_open_as_one_dataset(case, joined):
    assert joined.sizes["elapsed_time"] == 180
    assert joined["elapsed_time"].values.tolist() == [elapsed_days(m) for m in case.months]
    assert joined["polygon_id"].values.tolist() == [POLYGON]
    assert joined.sizes["intervention_date"] == 1
    assert np.isfinite(joined["TLAT"].values).all()
    assert np.isfinite(joined["TLONG"].values).all()


def test_time_delta_of_the_joined_dataset_has_the_lengths_of_months(joined):
    lengths = joined["time_delta"]
    assert lengths.dims == ("elapsed_time",)
    assert lengths.values[:11].tolist() == [30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28]


def test_values_of_the_joined_dataset_equal_those_of_the_model(case, joined):
    for step in (0, 1, 90, 179):
        with xr.open_dataset(case.raw(case.months[step]), decode_times=False) as raw:
            for name in ("DIC", "FG_CO2", "DIC_FLUX"):
                made = joined[name].isel(elapsed_time=step).values.reshape(raw[name].shape)
                assert np.isfinite(made).any(), (step, name)
                assert np.array_equal(made, raw[name].values, equal_nan=True), (step, name)
