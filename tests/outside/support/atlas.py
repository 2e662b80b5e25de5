"""The three visualization stores and the second one in Zarr v3: one synthetic case in each."""

from dataclasses import dataclass
from pathlib import Path

from support.program import MONTH, POLYGON, Dor

FILL = 9.969209968386869e36
POLYGONS = 690
SEASONS = [1, 4, 7, 10]
SEASON = SEASONS.index(MONTH)
BANDS = ["delta", "experimental"]
VARIABLES = ["DIC_SURF", "DIC", "PH", "FG", "pCO2SURF"]
DIMENSIONS = ["polygon_id", "band", "injection_date", "month", "year", "y", "x"]
MONTHS = list(range(1, 13))
YEARS = list(range(1, 16))
LEVELS = {0: 128, 1: 256}
TILE = 128


@dataclass(frozen=True)
class Atlas:
    folder: Path

    @property
    def store1(self) -> Path:
        return self.folder / "store1b.zarr"

    @property
    def store2(self) -> Path:
        return self.folder / "store2.zarr"

    @property
    def store2_v3(self) -> Path:
        return self.folder / "store2-v3.zarr"

    @property
    def store3(self) -> Path:
        return self.folder / "cumulative_FG_CO2_percent.zarr"

    def v2_stores(self) -> list[Path]:
        return [self.store1, self.store2, self.store3]


def make(dor: Dor, folder: Path) -> Atlas:
    atlas, raw = Atlas(folder / "stores"), folder / "raw"
    dor.make_raw(raw, "--ssh")
    case = ("-p", POLYGON, "--intervention-months", MONTH, "--data-dir", raw / "archive")
    grid = ("--grid", raw / "grid.nc")
    pyramid = (*grid, "--ssh", raw / "ssh.nc")
    for kind, store, form, inputs in [
        ("store1", atlas.store1, (), ()),
        ("store2", atlas.store2, (), pyramid),
        ("store2", atlas.store2_v3, ("--zarr-format", 3), pyramid),
        ("store3", atlas.store3, (), (*grid, "--centers", raw / "centers.csv")),
    ]:
        dor("vis", f"create-template-{kind}", "--output-store", store, *form)
        dor("vis", f"populate-{kind}", "--output-store", store, *case, *inputs)
        dor("vis", "finalize", store)
    dor("vis", "check", atlas.store1)
    return atlas
