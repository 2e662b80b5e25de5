"""The map stores read by xarray with zarr-python 2 and with zarr-python 3."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zarr
from support import web, zarr_reader
from support.atlas import (
    BANDS,
    DIMENSIONS,
    FILL,
    LEVELS,
    MONTHS,
    POLYGONS,
    SEASON,
    SEASONS,
    VARIABLES,
    YEARS,
)
from support.program import POLYGON, REPOSITORY

ZARR_2 = ("tests/outside/requirements-zarr2.txt", REPOSITORY / ".tools" / "zarr2")
# Half of the circumference of the Earth in metres, as defined for Web Mercator.
EDGE = 20037508.342789244


@dataclass(frozen=True)
class Reader:
    """A Python interpreter with one version of zarr-python."""

    python: Path
    version: int

    def describe(self, store: Path, group: str, selection: dict) -> dict:
        text = self._run(zarr_reader.__file__, store, group, json.dumps(selection))
        answer = json.loads(text)
        assert answer["zarr"].startswith(f"{self.version}.")
        return answer

    def consolidate(self, store: Path) -> dict:
        code = "import sys, zarr; zarr.consolidate_metadata(sys.argv[1])"
        self._run("-c", code, store)
        return json.loads((store / ".zmetadata").read_text())

    def _run(self, *arguments: object) -> str:
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def zarr_2() -> Reader:
    requirements, folder = ZARR_2
    subprocess.run([REPOSITORY / "scripts" / "venv.sh", folder, requirements], check=True)
    return Reader(folder / "bin" / "python", 2)


@pytest.fixture(scope="module")
def zarr_3() -> Reader:
    return Reader(Path(sys.executable), 3)


@pytest.fixture(scope="module", params=["zarr_2", "zarr_3"])
def reader(request) -> Reader:
    return request.getfixturevalue(request.param)


def coordinate(dimension: str, values: list, dtype: str = "int32") -> dict:
    return {"dims": [dimension], "dtype": dtype, "values": values}


def assert_is_stored(answer: dict, stored: np.ndarray) -> None:
    """Asserts that the values are those on disk, with NaN for fill values."""
    read = web.decoded(answer)
    assert answer["dtype"] == "float32"
    assert 0 < np.isnan(read).sum() < read.size
    wanted = np.where(stored == np.float32(FILL), np.float32(np.nan), stored)
    assert np.array_equal(read, wanted, equal_nan=True)


@pytest.mark.parametrize(
    ("store", "name", "distances"),
    [
        ("store1", "DOR_efficiency", {}),
        ("store3", "FG_CO2_percent_cumulative", {"dist2center": [500000, 1000000, 2000000]}),
    ],
)
def test_series_have_the_expected_coordinates_and_values(reader, atlas, store, name, distances):
    path = getattr(atlas, store)
    dimensions = {
        "elapsed_time": list(range(180)),
        "polygon_id": list(range(POLYGONS)),
        "intervention_month": SEASONS,
        **distances,
    }
    answer = reader.describe(path, "", {"intervention_month": SEASON})
    assert answer["sizes"] == {name: len(values) for name, values in dimensions.items()}
    assert answer["indexes"] == sorted(dimensions)
    assert answer["coordinates"] == {
        name: coordinate(name, values) for name, values in dimensions.items()
    }
    assert answer["data"].keys() == {name}
    series = answer["data"][name]
    assert series["dims"] == list(dimensions)
    assert_is_stored(series, zarr.open_array(path / name, mode="r")[:, :, SEASON])


@pytest.mark.parametrize("level", LEVELS)
def test_maps_have_the_expected_coordinates_and_values(reader, atlas, level):
    band, month = 1, 6
    chosen = {"polygon_id": POLYGON, "band": band, "injection_date": SEASON, "month": month}
    answer = reader.describe(atlas.store2, str(level), chosen)
    pixels = LEVELS[level]
    sizes = (POLYGONS, len(BANDS), len(SEASONS), len(MONTHS), len(YEARS), pixels, pixels)
    assert answer["sizes"] == dict(zip(DIMENSIONS, sizes, strict=True))
    assert answer["indexes"] == sorted(DIMENSIONS)
    coordinates = answer["coordinates"]
    x, y = coordinates.pop("x"), coordinates.pop("y")
    assert coordinates == {
        "band": coordinate("band", BANDS, "string"),
        "polygon_id": coordinate("polygon_id", list(range(POLYGONS))),
        "injection_date": coordinate("injection_date", SEASONS),
        "month": coordinate("month", MONTHS),
        "year": coordinate("year", YEARS),
        "elapsed_time": {
            "dims": ["month", "year"],
            "dtype": "int32",
            "values": [[(year - 1) * 12 + month - 1 for year in YEARS] for month in MONTHS],
        },
    }
    assert_pixel_centers(x, "x", pixels)
    assert_pixel_centers(y, "y", pixels)
    assert answer["data"].keys() == set(VARIABLES)
    group = zarr.open_group(atlas.store2, mode="r")
    for name, fields in answer["data"].items():
        assert fields["dims"] == DIMENSIONS
        assert_is_stored(fields, group[f"{level}/{name}"][POLYGON, band, SEASON, month])


def assert_pixel_centers(axis: dict, name: str, pixels: int) -> None:
    """Asserts pixel centers: the web page spaces columns eastwards and rows southwards evenly."""
    assert (axis["dims"], axis["dtype"]) == ([name], "float32")
    size = 2 * EDGE / pixels
    drawn = (np.arange(pixels) + 0.5) * size - EDGE
    off = np.array(axis["values"]) - (drawn if name == "x" else drawn[::-1])
    assert np.abs(off).max() < size / 4


def test_the_root_group_describes_the_pyramid(reader, atlas):
    attributes = reader.describe(atlas.store2, "", {})["attributes"]
    assert {"title", "version"} <= attributes.keys()
    (scales,) = attributes["multiscales"]
    assert scales["type"] == "reduce"
    assert isinstance(scales["metadata"], dict)
    assert scales["datasets"] == [
        {"path": str(level), "level": level, "crs": "EPSG:3857", "pixels_per_tile": 128}
        for level in LEVELS
    ]


def test_consolidating_again_changes_nothing(reader, atlas, tmp_path):
    for store in atlas.v2_stores():
        before = strict_json(store / ".zmetadata")
        copy = tmp_path / store.name
        shutil.copytree(store, copy, ignore=all_but_metadata)
        after = reader.consolidate(copy)
        if reader.version == 3:
            before, after = normalized(before), normalized(after)
        assert before == after, store.name


def strict_json(path: Path) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"{path}: {constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def all_but_metadata(folder: str, names: list[str]) -> set[str]:
    metadata = {".zgroup", ".zarray", ".zattrs"}
    return {name for name in names if name not in metadata and not Path(folder, name).is_dir()}


def normalized(consolidated: dict) -> dict:
    """Removes what only zarr-python 3 writes: default separator, empty attributes and members."""
    metadata = {}
    for key, value in consolidated["metadata"].items():
        if key.endswith(".zarray"):
            metadata[key] = {"dimension_separator": "."} | value
        elif key.endswith(".zgroup"):
            metadata[key] = {"zarr_format": value["zarr_format"]}
        elif value:
            metadata[key] = value
    return consolidated | {"metadata": metadata}


def test_the_zarr_3_store_equals_the_zarr_2_store(atlas):
    old = zarr.open_group(atlas.store2, mode="r")
    new = zarr.open_group(atlas.store2_v3, mode="r")
    assert new.metadata.zarr_format == 3
    assert dict(new.attrs) == dict(old.attrs)
    for level in LEVELS:
        for name in (*DIMENSIONS, "elapsed_time"):
            before, after = old[f"{level}/{name}"], new[f"{level}/{name}"]
            assert after[...].tolist() == before[...].tolist(), name
            assert list(after.metadata.dimension_names) == before.attrs["_ARRAY_DIMENSIONS"]
        for name in VARIABLES:
            before, after = old[f"{level}/{name}"], new[f"{level}/{name}"]
            assert (after.dtype, after.shape) == (before.dtype, before.shape)
            assert after.fill_value == np.float32(FILL)
            assert after.shards is not None
            for band, month in [(0, 0), (1, 5), (1, 11)]:
                place = (POLYGON, band, SEASON, month)
                assert np.array_equal(after[place], before[place]), (level, name, place)


@pytest.mark.parametrize("level", LEVELS)
def test_xarray_reads_the_same_dataset_from_the_zarr_3_store(zarr_3, atlas, level):
    """Fill values too: in Zarr 3, xarray uses the attribute `_FillValue`, not `fill_value`."""
    chosen = {"polygon_id": POLYGON, "band": 0, "injection_date": SEASON, "month": 3, "year": 9}
    before = zarr_3.describe(atlas.store2, str(level), chosen)
    after = zarr_3.describe(atlas.store2_v3, str(level), chosen)
    for part in ("sizes", "indexes", "coordinates", "data"):
        assert after[part] == before[part], part
