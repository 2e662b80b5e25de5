"""The libraries of the web page, run in Node, read the values that zarr-python reads from disk."""

import base64
import urllib.error
import urllib.request
from dataclasses import dataclass

import numpy as np
import pytest
import zarr
from support import web
from support.atlas import (
    BANDS,
    DIMENSIONS,
    FILL,
    LEVELS,
    MONTHS,
    POLYGONS,
    SEASON,
    SEASONS,
    TILE,
    VARIABLES,
    YEARS,
)
from support.program import MONTH, POLYGON

BUCKET = "dor-web"
ORIGIN = "https://map.example"
ABSENT = POLYGON + 1
REGION = {"level": 1, "center": [-10, 5], "radius": 2600}
EARTH = 6371.0088  # radius of the Earth in the library, km
# The only variable that is read from the bucket, to save time.
IN_BUCKET = "FG"


def selector(band: str, month: int, year: int | list[int], polygon: int = POLYGON) -> dict:
    chosen = {"band": band, "polygon_id": polygon, "injection_date": MONTH}
    return chosen | {"month": month, "year": year}


# Selects every chunk of the case, each with another year, so that all years occur.
SELECTORS = [
    selector(band, month, (month * 4 + i) % 15 + 1)
    for i, band in enumerate(BANDS)
    for month in MONTHS
]


@pytest.fixture(scope="module")
def node() -> web.Node:
    return web.Node()


@pytest.fixture(scope="module")
def folder(atlas):
    with web.serve(atlas.folder) as url:
        yield url


@pytest.fixture(scope="module")
def bucket(atlas, minio):
    url = minio.make_public(BUCKET)
    others = set(VARIABLES) - {IN_BUCKET}
    paths = [
        path
        for path in sorted(atlas.folder.rglob("*"))
        if path.is_file() and (_is_metadata(path) or others.isdisjoint(path.parts))
    ]
    keys = [f"{BUCKET}/{path.relative_to(atlas.folder)}" for path in paths]
    minio.files().put([str(path) for path in paths], keys)
    return url


def _is_metadata(path) -> bool:
    return path.name.startswith(".z") or path.name == "zarr.json"


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request) -> str:
    return request.getfixturevalue(request.param)


@dataclass
class Map:
    """What the map library read of one variable, and the arrays on disk."""

    read: dict
    levels: dict[int, zarr.Array]

    def stored(self, level: int, chosen: dict, *pixels: slice) -> np.ndarray:
        season, band = SEASONS.index(chosen["injection_date"]), BANDS.index(chosen["band"])
        year = np.array(chosen["year"]) - 1
        array = self.levels[level]
        month = chosen["month"] - 1
        return array[chosen["polygon_id"], band, season, month, :, *pixels][year]


def _read_maps(node, atlas, place: str, variables: list[str]) -> dict[str, Map]:
    """Reads all variables, selectors and regions in one run of Node."""
    selectors = [*SELECTORS, selector(BANDS[0], MONTHS[0], YEARS[0], polygon=ABSENT)]
    regions = [REGION | {"selector": selector(BANDS[1], 6, [1, 15])}]
    read = node("read-map.mjs", f"{place}/{atlas.store2.name}", variables, selectors, regions)
    group = zarr.open_group(atlas.store2, mode="r")
    return {
        variable: Map(read[variable], {level: group[f"{level}/{variable}"] for level in LEVELS})
        for variable in variables
    }


@pytest.fixture(scope="module")
def folder_maps(node, atlas, folder) -> dict[str, Map]:
    return _read_maps(node, atlas, folder, VARIABLES)


@pytest.fixture(scope="module")
def bucket_maps(node, atlas, bucket) -> dict[str, Map]:
    return _read_maps(node, atlas, bucket, [IN_BUCKET])


@pytest.fixture(
    scope="module",
    params=[*(("folder_maps", variable) for variable in VARIABLES), ("bucket_maps", IN_BUCKET)],
    ids="-".join,
)
def map_(request) -> Map:
    maps, variable = request.param
    return request.getfixturevalue(maps)[variable]


@pytest.mark.parametrize(
    ("store", "name"),
    [("store1", "DOR_efficiency"), ("store3", "FG_CO2_percent_cumulative")],
)
def test_charts_read_the_series_of_all_polygons(place, node, atlas, store, name):
    path = getattr(atlas, store)
    stored = zarr.open_array(path / name, mode="r")[...]
    picked = [0, POLYGON, POLYGONS - 1]
    seasons = node("read-series.mjs", f"{place}/{path.name}", name, *picked)
    assert len(seasons) == len(SEASONS)
    for index, season in enumerate(seasons):
        everything = web.decoded(season["all"])
        assert np.array_equal(everything, stored[:, :, index : index + 1]), index
        assert season["all"]["filled"] == np.count_nonzero(everything == np.float32(FILL))
        for polygon in picked:
            series = season["series"][str(polygon)]
            assert np.array_equal(web.decoded(series), stored[:, polygon, index]), polygon
            is_the_case = (polygon, index) == (POLYGON, SEASON)
            assert (series["filled"] < np.size(stored[:, 0, 0])) == is_the_case, (polygon, index)


def test_the_map_reads_all_coordinates(map_):
    assert map_.read["dimensions"] == DIMENSIONS
    assert map_.read["coordinates"] == {
        "band": BANDS,
        "polygon_id": list(range(POLYGONS)),
        "injection_date": SEASONS,
        "month": MONTHS,
        "year": YEARS,
    }


def test_the_map_draws_every_chunk_of_the_case(map_):
    drawn = [tile for tile in map_.read["drawn"] if tile["selector"]["polygon_id"] == POLYGON]
    tiles = sum(4**level for level in LEVELS)
    assert len(drawn) == len(SELECTORS) * tiles
    seen = set()
    for tile in drawn:
        level, (x, y) = tile["level"], tile["offset"]
        assert tile["values"] is not None, f"absent: level {level}, {x}, {y}, {tile['selector']}"
        rows, columns = (slice(i * TILE, (i + 1) * TILE) for i in (y, x))
        values = map_.stored(level, tile["selector"], rows, columns)
        assert np.array_equal(web.decoded(tile["values"]), values), tile["selector"]
        assert tile["values"]["filled"] == np.count_nonzero(values == np.float32(FILL))
        if level == 0:
            assert tile["values"]["filled"] < values.size, tile["selector"]
        seen.add((level, x, y))
    assert len(seen) == tiles


def test_the_fill_value_is_the_one_that_the_page_compares_with(map_):
    assert map_.read["fillValue"] == FILL


def test_the_map_has_no_values_of_an_absent_case(map_):
    """A tile of an absent case has no values, so drawn tiles were read from chunks."""
    absent = [tile for tile in map_.read["drawn"] if tile["selector"]["polygon_id"] == ABSENT]
    assert absent
    assert all(tile["values"] is None for tile in absent)


def test_the_map_returns_the_values_inside_a_circle(map_):
    (inside,) = map_.read["inside"]
    pixels = LEVELS[REGION["level"]]
    corners = np.arange(pixels) / pixels
    longitude = corners * 360 - 180
    latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * corners))))
    near = _distance(latitude[:, None], longitude[None, :]) < REGION["radius"]
    rows, columns = _pixel(inside["coordinates"], pixels)
    assert sorted(zip(rows, columns, strict=True)) == [*map(tuple, np.argwhere(near))]
    variable = next(iter(inside))
    chosen = selector(BANDS[1], 6, [1, 15])
    stored = map_.stored(REGION["level"], chosen)
    for index, year in enumerate(chosen["year"]):
        values = stored[index, rows, columns]
        assert inside[variable][str(year)] == values.tolist(), year
        assert np.any(values != np.float32(FILL))


def _distance(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Distance from the center of the region, km."""
    east, north = np.radians(REGION["center"])
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    across = np.sin((longitude - east) / 2) ** 2 * np.cos(latitude) * np.cos(north)
    return 2 * EARTH * np.arcsin(np.sqrt(np.sin((latitude - north) / 2) ** 2 + across))


def _pixel(coordinates: dict, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixels whose north-western corners are these points."""
    columns = (np.array(coordinates["lon"]) / 360 + 0.5) * pixels
    north = np.arcsinh(np.tan(np.radians(coordinates["lat"])))
    rows = (0.5 - north / (2 * np.pi)) * pixels
    return np.rint(rows).astype(int), np.rint(columns).astype(int)


def test_zarrita_reads_the_zarr_3_store(place, node, atlas):
    group = zarr.open_group(atlas.store2_v3, mode="r")
    chunks = [
        (f"{level}/{IN_BUCKET}", [POLYGON, band, season, month, 0, row, row])
        for level, row in [(0, 0), (1, 0), (1, 1)]
        for band, season, month in [(0, SEASON, 0), (1, SEASON, 11), (0, SEASON + 1, 5)]
    ]
    coordinates = [(f"{level}/{name}", [0]) for level in LEVELS for name in DIMENSIONS]
    coordinates += [(f"{level}/elapsed_time", [0, 0]) for level in LEVELS]
    requests = [{"array": name, "chunk": chunk} for name, chunk in chunks + coordinates]
    read = node("read-v3.mjs", f"{place}/{atlas.store2_v3.name}", requests)
    assert read["attributes"] == dict(group.attrs)
    assert {entry["path"] for entry in read["contents"] if entry["kind"] == "array"} == {
        f"/{level}/{name}" for level in LEVELS for name in [*VARIABLES, *DIMENSIONS, "elapsed_time"]
    }
    for (name, chunk), answer in zip(chunks + coordinates, read["answers"], strict=True):
        array = group[name]
        stored = array[_extent(array, chunk)]
        assert answer["dtype"] == _dtype(name), name
        assert answer["shape"] == list(array.shape), name
        assert answer["dimensionNames"] == list(array.metadata.dimension_names), name
        if answer["dtype"] == "string":
            assert answer["values"] == stored.tolist() == BANDS
            continue
        values = np.frombuffer(base64.b64decode(answer["values"]), answer["dtype"])
        assert np.array_equal(values, stored.ravel()), (name, chunk)
        if name.endswith(IN_BUCKET):
            assert answer["fillValue"] == FILL
            assert np.all(values == np.float32(FILL)) == (chunk[2] != SEASON), chunk


def _extent(array: zarr.Array, chunk: list[int]) -> tuple[slice, ...]:
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(chunk, array.chunks, strict=True))


def _dtype(name: str) -> str:
    special = {"band": "string", "x": "float32", "y": "float32", IN_BUCKET: "float32"}
    return special.get(name.rsplit("/", 1)[1], "int32")


def test_responses_for_absent_keys_are_readable_from_other_origins(place, atlas):
    """Without the header, a page cannot distinguish an absent chunk from a network error."""
    for key, statuses in [(".zmetadata", {200}), ("DOR_efficiency/0.0.9", {403, 404})]:
        status, allowed = _request(f"{place}/{atlas.store1.name}/{key}")
        assert status in statuses, key
        assert allowed in {"*", ORIGIN}, key


def _request(url: str) -> tuple[int, str | None]:
    """Status of a response and the origins that may read it."""
    request = urllib.request.Request(url, headers={"Origin": ORIGIN})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Access-Control-Allow-Origin"]
