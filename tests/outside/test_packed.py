"""Packed variables: `dor` unpacks them to the same values as xarray."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from support.program import Case

# Type, fill value, scale factor, offset and other attributes of the packed TAREA.
PACKINGS = {
    "shorts": ("i2", -1, 1e12, 0.0, {}),
    "unsigned shorts": ("u2", 65535, 1e12, 0.0, {}),
    "an offset": ("i2", -32768, 1e11, 3e15, {}),
    "integers in floats": ("i4", -1, np.float32(1e9), np.float32(0), {}),
    "unsigned bytes by attribute": ("i1", -1, 1e14, 0.0, {"_Unsigned": "true"}),
    "several missing values": ("i2", -1, 1e12, 0.0, {"missing_value": np.array([-1, -2], "i2")}),
    "square metres": ("i4", -1, 1e5, 0.0, {"units": "m^2"}),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_area_from_packed_tarea_equals_that_of_xarray(dor, tmp_path, packing):
    dor.make_raw(tmp_path, "--months", "1")
    case = Case.below(tmp_path, tmp_path / "out")
    raw = case.raw(case.months[0])
    pack(raw, *PACKINGS[packing])
    dor.process_case(case.archive, case.output, case.grid, "--allow-missing")
    made = next(case.output.rglob("*.nc"))
    with xr.open_dataset(raw, decode_times=False) as before:
        factor = 1.0 if before["TAREA"].attrs["units"] == "m^2" else 1e-4
        expected = before["TAREA"].values.astype("f8") * factor
    with xr.open_dataset(made, decode_times=False) as after:
        np.testing.assert_allclose(after["area_m2"].values, expected, rtol=1e-6)
        # TAREA itself stays packed.
        np.testing.assert_array_equal(after["TAREA"].values, before["TAREA"].values)


def pack(path, dtype, fill, scale, offset, attributes) -> None:
    """Replaces a file by a NetCDF-4 copy in which TAREA is packed."""
    other = path.with_suffix(".other")
    with netCDF4.Dataset(path) as raw, netCDF4.Dataset(other, "w") as made:
        raw.set_auto_maskandscale(False)
        for name, dimension in raw.dimensions.items():
            made.createDimension(name, None if dimension.isunlimited() else len(dimension))
        made.setncatts({key: raw.getncattr(key) for key in raw.ncattrs()})
        for name, variable in raw.variables.items():
            own = {key: variable.getncattr(key) for key in variable.ncattrs()}
            own_fill, values = own.pop("_FillValue", None), variable[...]
            if name == "TAREA":
                own = {"units": "centimeter^2", "scale_factor": scale, "add_offset": offset}
                own |= attributes
                area = values * (1e-4 if own["units"] == "m^2" else 1.0)
                packed = np.where(values < 1e30, np.round((area - offset) / scale), fill)
                kind = dtype.replace("i", "u") if "_Unsigned" in own else dtype
                own_fill, values = fill, packed.astype("i8").astype(kind).view(dtype)
            copy = made.createVariable(name, values.dtype, variable.dimensions, fill_value=own_fill)
            copy.set_auto_maskandscale(False)
            copy.setncatts(own)
            copy[...] = values
    other.replace(path)
