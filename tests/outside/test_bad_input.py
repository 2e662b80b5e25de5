"""Raw files that other tools wrote and that `dor` cannot convert."""

import shutil

import netCDF4
import pytest
from support.program import CASE, Case

BAD_DATA = 65


@pytest.mark.parametrize("compression", ["zstd", "bzip2"])
def test_unsupported_compression_filters_are_refused(dor, tmp_path, compression):
    dor.make_raw(tmp_path, "--months", "2")
    case = Case.below(tmp_path, tmp_path / "out")
    recompress(case.raw(case.months[1]), compression)
    done = dor.run(
        *("research-data", "process-case", CASE, "--allow-missing"),
        *("-d", case.archive, "-o", case.output, "--grid", case.grid),
    )
    assert done.returncode == BAD_DATA
    for word in (case.raw(case.months[1]).name, "`DIC`", compression, "nccopy -d 4 -s"):
        assert word in done.stderr, done.stderr
    assert not case.output.exists()


def recompress(path, compression) -> None:
    """Replaces a file by a NetCDF-4 copy in which DIC has this compression filter."""
    other = path.with_suffix(".other")
    with netCDF4.Dataset(path) as raw, netCDF4.Dataset(other, "w") as made:
        raw.set_auto_maskandscale(False)
        for name, dimension in raw.dimensions.items():
            made.createDimension(name, None if dimension.isunlimited() else len(dimension))
        for name, variable in raw.variables.items():
            attributes = {key: variable.getncattr(key) for key in variable.ncattrs()}
            fill = attributes.pop("_FillValue", None)
            filters = {"compression": compression} if name == "DIC" else {}
            copy = made.createVariable(
                name, variable.dtype, variable.dimensions, fill_value=fill, **filters
            )
            copy.set_auto_maskandscale(False)
            copy.setncatts(attributes)
            copy[...] = variable[...]
    shutil.move(other, path)
