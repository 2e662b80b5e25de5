"""Stores 1 and 3 from analysis and excess stores that zarr-python wrote in Zarr 2 and Zarr 3."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr

NAME = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001.analysis.zarr"


def write_analysis_store(folder, zarr_format, added, flux) -> None:
    root = zarr.create_group(folder / NAME, zarr_format=zarr_format)
    for name, values in (("DIC_ADD_TOTAL", added), ("DIC_FLUX", flux)):
        root.create_array(name, data=values, chunks=(50,))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_efficiency_is_the_ratio_of_added_to_removed_carbon(dor, tmp_path, zarr_format, dtype):
    added = np.linspace(1e9, 8e10, 180).astype(dtype)
    flux = np.full(180, -1e11, dtype)
    write_analysis_store(tmp_path / "analyses", zarr_format, added, flux)
    store = tmp_path / "store1b.zarr"
    dor("vis", "create-template-store1", "-o", store)
    dor("vis", "populate-store1", "-o", store, "-a", tmp_path / "analyses")
    dor("vis", "finalize", store)
    efficiency = zarr.open_group(store, mode="r")["DOR_efficiency"]
    expected = (-added.astype("f8") / flux).astype("f4")
    np.testing.assert_array_equal(efficiency[:, 112, 1], expected)
    assert (efficiency[:, 113, 1] == np.float32(9.969209968386869e36)).all()


def test_an_analysis_store_with_zero_flux_is_refused(dor, tmp_path):
    write_analysis_store(tmp_path / "analyses", 3, np.ones(180), np.zeros(180))
    store = tmp_path / "store1b.zarr"
    dor("vis", "create-template-store1", "-o", store)
    done = dor.run("vis", "populate-store1", "-o", store, "-a", tmp_path / "analyses")
    assert done.returncode == 65
    assert "no efficiency" in done.stderr
    assert not (store / ".cases").exists()
    assert json.loads(dor("vis", "check", store, "--json"))["sound"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_uptake_from_an_excess_store_equals_that_of_raw_files(
    dor, mini_case, tmp_path, zarr_format
):
    months = [xr.open_dataset(mini_case.raw(m), decode_times=False) for m in mini_case.months]
    root = zarr.create_group(
        tmp_path / "excesses" / NAME.replace("analysis", "excess"), zarr_format=zarr_format
    )
    excess = np.stack([(m["FG_CO2"] - m["FG_ALT_CO2"]).values[0] for m in months])
    root.create_array("FG_CO2_excess", data=excess, chunks=(12, *excess.shape[1:]))
    root.create_array("TAREA", data=months[0]["TAREA"].values)
    centers = mini_case.grid.parent / "centers.csv"
    values = []
    for name, source in (
        ("files", ("--data-dir", mini_case.archive)),
        ("excess", ("--excess-dir", tmp_path / "excesses")),
    ):
        store = tmp_path / name
        dor("vis", "create-template-store3", "-o", store)
        case = ("-p", 112, "-m", 4, "--grid", mini_case.grid, "--centers", centers)
        dor("vis", "populate-store3", "-o", store, *case, *source)
        dor("vis", "finalize", store)
        array = zarr.open_group(store, mode="r")["FG_CO2_percent_cumulative"]
        values.append(array[:, 112, 1])
    np.testing.assert_allclose(*values, atol=1e-5)


def test_units_of_an_excess_store_are_converted_or_refused(dor, mini_case, tmp_path):
    points = xr.open_dataset(mini_case.grid)["TLAT"].shape
    excess = np.random.default_rng(1).normal(size=(180, *points)) + 0.1
    centers = mini_case.grid.parent / "centers.csv"

    def populate(name, flux, area, flux_units, area_units):
        folder = tmp_path / name / NAME.replace("analysis", "excess")
        root = zarr.create_group(folder, zarr_format=2)
        root.create_array("FG_CO2_excess", data=flux).attrs["units"] = flux_units
        root.create_array("TAREA", data=area).attrs["units"] = area_units
        store = tmp_path / f"{name}.zarr"
        dor("vis", "create-template-store3", "-o", store)
        case = ("-p", 112, "-m", 4, "--grid", mini_case.grid, "--centers", centers)
        given = ("--excess-dir", tmp_path / name)
        return store, dor.run("vis", "populate-store3", "-o", store, *case, *given)

    area = np.full(points, 2e13)
    values = []
    for name, flux, own, units in (
        ("usual", excess, area, ("mmol/m^3 cm/s", "cm^2")),
        ("si", excess * 1e-5, area * 1e-4, ("mol m-2 s-1", "m^2")),
    ):
        store, done = populate(name, flux, own, *units)
        assert done.returncode == 0, done.stderr
        dor("vis", "finalize", store)
        values.append(zarr.open_group(store, mode="r")["FG_CO2_percent_cumulative"][:, 112, 1])
    np.testing.assert_allclose(*values, rtol=1e-4)
    done = populate("wrong", excess, area, "mmol/m^3 cm/s", "furlong^2")[1]
    assert done.returncode == 65
    assert "TAREA:units" in done.stderr
