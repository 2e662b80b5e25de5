"""What a research-grade file must look like, worked out from its raw file with netCDF4 alone."""

from dataclasses import dataclass

import netCDF4
import numpy as np

from support.program import MONTH

LEADING = ("polygon_id", "intervention_date", "elapsed_time")
REPLACED = {"time", "TLONG", "TLAT", "KMT"}
DROPPED = {"time_bound"}
ADDED = {"polygon_id", "intervention_date", "elapsed_time", "time_delta", "area_m2"}
# The call that research-grade files promise to work with; lengths of time stay numbers of days.
JOINING = {
    "combine": "by_coords",
    "coords": "minimal",
    "data_vars": "minimal",
    "compat": "override",
    "decode_timedelta": False,
}
MODEL_YEAR_OF_1999 = 347
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class Layout:
    """Dimensions, storage and type of one variable."""

    dimensions: tuple[str, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None
    filtered: bool


def open_bits(path) -> netCDF4.Dataset:
    """Opens a file so that variables come as they are stored: no masks, no scaling."""
    dataset = netCDF4.Dataset(path)
    dataset.set_auto_maskandscale(False)
    return dataset


def is_data(variable: netCDF4.Variable) -> bool:
    return "time" in variable.dimensions and variable.name not in {"time", "time_bound"}


def layouts(raw: netCDF4.Dataset) -> dict[str, Layout]:
    """The layout of every variable that has more than one value, and of the scalars."""
    expected = {}
    for name, variable in raw.variables.items():
        if name in DROPPED:
            continue
        dimensions = variable.dimensions
        if is_data(variable):
            dimensions = LEADING + dimensions[1:]
        elif name == "time":
            dimensions = ("elapsed_time",)
        expected[name] = _layout(raw, dimensions, variable.dtype)
    expected["area_m2"] = _layout(raw, raw["TAREA"].dimensions, np.dtype("f8"))
    expected["time_delta"] = _layout(raw, ("elapsed_time",), np.dtype("f8"))
    for name, kind in zip(LEADING, ("i4", "i8", "i8"), strict=True):
        expected[name] = _layout(raw, (name,), np.dtype(kind))
    return expected


def _layout(raw: netCDF4.Dataset, dimensions: tuple[str, ...], dtype: np.dtype) -> Layout:
    filtered = bool(dimensions) and dtype.kind == "f"
    shape = tuple(1 if name in LEADING else len(raw.dimensions[name]) for name in dimensions)
    return Layout(dimensions, dtype, shape if filtered else None, filtered)


def elapsed_days(month: str) -> int:
    """Days of the noleap calendar from the intervention to the first day of model month `month`."""
    year, number = (int(part) for part in month.split("-"))
    start = (year - MODEL_YEAR_OF_1999) * 365 + sum(MONTH_LENGTHS[: number - 1])
    return start - sum(MONTH_LENGTHS[: MONTH - 1])
