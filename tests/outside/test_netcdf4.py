"""netCDF4-python: layout, attributes and every bit of the values compared with the raw files."""

import numpy as np
import pytest
from support.contract import (
    ADDED,
    DROPPED,
    LEADING,
    REPLACED,
    elapsed_days,
    is_data,
    layouts,
    open_bits,
)
from support.program import MONTH, POLYGON

# `bounds` names time_bound, which is dropped; the coordinates come from the grid file.
ATTRIBUTES_THAT_MAY_CHANGE = {
    "time": {"bounds", "units", "long_name"},
    "TLONG": {"_FillValue", "missing_value"},
    "TLAT": {"_FillValue", "missing_value"},
    "KMT": {"_FillValue", "missing_value"},
}


def test_the_case_has_one_file_for_each_of_180_months(case):
    assert len(case.months) == 180
    files = sorted(path.name for path in case.folder().glob("*.nc"))
    assert files == sorted(case.research(month).name for month in case.months)


def test_variables_have_the_expected_layout(case):
    for month in case.samples():
        with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
            wanted = layouts(raw)
            assert set(made.variables) == set(wanted)
            for name, layout in wanted.items():
                variable = made[name]
                assert variable.dimensions == layout.dimensions, name
                assert variable.dtype == layout.dtype, name
                assert made.data_model == "NETCDF4"
                filters, chunks = variable.filters(), variable.chunking()
                if layout.filtered:
                    stored = (filters["zlib"], filters["complevel"], filters["shuffle"])
                    assert stored == (True, 4, True), name
                    assert tuple(chunks) == layout.chunks, name
                else:
                    assert chunks == "contiguous", name


def test_no_dimension_is_empty_or_unlimited(case):
    with open_bits(case.research(case.months[0])) as made:
        for dimension in made.dimensions.values():
            assert len(dimension) > 0, dimension.name
            assert not dimension.isunlimited(), dimension.name


def test_values_equal_those_of_the_model_bit_for_bit(case):
    compared = 0
    for month in case.months:
        with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
            for name, variable in raw.variables.items():
                if name in REPLACED | DROPPED:
                    continue
                assert made[name][...].tobytes() == variable[...].tobytes(), (month, name)
                compared += is_data(variable)
    assert compared >= 180 * 8


def test_attributes_are_kept(case):
    month = case.months[0]
    with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
        for name in set(raw.variables) - DROPPED:
            for attribute in set(raw[name].ncattrs()) - ATTRIBUTES_THAT_MAY_CHANGE.get(name, set()):
                if attribute == "coordinates":
                    continue
                before, after = raw[name].getncattr(attribute), made[name].getncattr(attribute)
                assert type(after) is type(before), (name, attribute)
                assert after == before, (name, attribute)
        for attribute in set(raw.ncattrs()) - {"history"}:
            assert made.getncattr(attribute) == raw.getncattr(attribute), attribute


@pytest.mark.parametrize("name", ["TLONG", "TLAT", "KMT", "time", "elapsed_time", "time_delta"])
def test_added_and_replaced_variables_have_long_name_and_units(case, name):
    with open_bits(case.research(case.months[0])) as made:
        assert made[name].long_name
        assert name == "KMT" or made[name].units


def test_coordinates_times_and_areas_have_the_expected_values(case):
    with open_bits(case.grid) as grid:
        full = {name: grid[name][...] for name in ("TLONG", "TLAT")}
    for month in case.months:
        with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
            bounds = raw["time_bound"][0]
            assert made["time"][0] == bounds.mean(), month
            assert made["time_delta"][0] == bounds[1] - bounds[0], month
            assert [int(made[name][0]) for name in LEADING] == [POLYGON, 0, elapsed_days(month)]
            since = f"days since 1999-{MONTH:02}-01"
            assert made["intervention_date"].units.startswith(since)
            assert made["intervention_date"].calendar == "noleap"
            assert made["elapsed_time"].units == "days"
            for name, values in full.items():
                assert np.array_equal(made[name][...], values), (month, name)
            depth = raw["KMT"][...]
            depth = np.where(depth == raw["KMT"]._FillValue, 0, depth)
            assert np.array_equal(made["KMT"][...], depth), month
            area, tarea = made["area_m2"], raw["TAREA"][...]
            land = tarea == raw["TAREA"]._FillValue
            assert np.array_equal(area[...][~land], tarea[~land] * 1e-4), month
            assert np.all(area[...][land] == area._FillValue), month
            assert area.units == "m^2"


def test_global_attributes_name_the_raw_file(case):
    month = case.months[0]
    with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
        added = set(made.ncattrs()) - set(raw.ncattrs())
        stated = " ".join(str(made.getncattr(name)) for name in made.ncattrs())
        assert case.raw(month).name in stated
        assert "dor" in made.history
        assert added - {"coordinates"}, "no global attribute says where the file came from"


def test_only_the_expected_variables_are_added_and_dropped(case):
    month = case.months[0]
    with open_bits(case.raw(month)) as raw, open_bits(case.research(month)) as made:
        assert set(made.variables) - set(raw.variables) == ADDED
        assert set(raw.variables) - set(made.variables) == DROPPED
