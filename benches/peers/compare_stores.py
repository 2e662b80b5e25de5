"""Compares what two map pyramids (store 2) hold of one case, chunk by chunk.

    compare_stores.py OURS.zarr THEIRS.zarr CASE        (CASE as 112-04)

Both must have every chunk of the case, and fill in the same cells. Values agree within 1e-6 of
the larger; but the delta of DIC within 3e-7 of the column itself, which is the noise of columns in
f32 that the reference's delta has. Prints the largest differences; exits with 1 on disagreement.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import zarr

DIMENSIONS = ["polygon_id", "band", "injection_date", "month", "year", "y", "x"]
STARTS = (1, 4, 7, 10)
RELATIVE, OF_COLUMN = 1e-6, 3e-7
KEPT = ("shape", "chunks", "dtype", "fill_value")


def arrays(group: zarr.Group) -> dict[str, zarr.Array]:
    """The arrays of maps, by level and name; coordinates are others."""
    return {
        f"{level}/{name}": array
        for level, part in group.groups()
        for name, array in part.arrays()
        if array.attrs["_ARRAY_DIMENSIONS"] == DIMENSIONS
    }


def largest(values: np.ndarray, scale: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(values / scale, nan=0.0).max(initial=0.0))


def compare(
    ours: zarr.Array, theirs: zarr.Array, polygon: int, start: int
) -> tuple[int, float, float]:
    """Cells with data; largest relative differences of the bands (DIC's delta: to the column)."""
    cells = 0
    fill = np.dtype("f4").type(ours.fill_value)
    worst = [0.0, 0.0]
    for month in range(12):
        where = (polygon, slice(None), STARTS.index(start), month)
        left, right = ours[where], theirs[where]
        if differ := int(((left == fill) != (right == fill)).sum()):
            sys.exit(f"{ours.path}, month {month + 1}: {differ} cells are fill in one only")
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            sys.exit(f"{ours.path}, month {month + 1}: values that are not finite")
        data = left != fill
        cells += int(data.sum())
        left, right = left.astype("f8"), right.astype("f8")
        for band in range(2):
            scale = np.maximum(abs(left[band]), abs(right[band]))
            if ours.path.endswith("/DIC") and band == 0:
                scale = abs(left[1])
            here = data[band]
            difference = abs(left[band] - right[band])[here]
            worst[band] = max(worst[band], largest(difference, scale[here]))
    return cells, *worst


def count_chunks(store: Path, path: str, polygon: int, start: int) -> int:
    return sum(1 for _ in (store / path).glob(f"{polygon}.*.{STARTS.index(start)}.*.*.*.*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("case")
    options = parser.parse_args()
    polygon, start = (int(part) for part in options.case.split("-"))
    left, right = (
        arrays(zarr.open_group(path, mode="r")) for path in (options.ours, options.theirs)
    )
    if not left or left.keys() != right.keys():
        sys.exit(f"different arrays: {sorted(left)} and {sorted(right)}")

    chunks, failed = 0, []
    print(f"{'array':12}{'cells':>10}{'delta':>10}{'experimental':>14}")
    for path in sorted(left):
        for kept in KEPT:
            values = getattr(left[path], kept), getattr(right[path], kept)
            if values[0] != values[1]:
                sys.exit(f"{path}: {kept} is {values[0]} and {values[1]}")
        expected = 2 * 12 * int(np.prod([-(-n // 128) for n in left[path].shape[-2:]]))
        for store in (options.ours, options.theirs):
            present = count_chunks(store, path, polygon, start)
            if present != expected:
                sys.exit(f"{store}/{path}: {present} chunks of the case, not {expected}")
        chunks += expected
        cells, delta, experimental = compare(left[path], right[path], polygon, start)
        print(f"{path:12}{cells:10}{delta:10.1e}{experimental:14.1e}")
        if cells == 0:
            sys.exit(f"{path}: nothing but fill in both")
        limit = OF_COLUMN if path.endswith("/DIC") else RELATIVE
        if delta > limit or experimental > RELATIVE:
            failed.append(path)
    if failed:
        sys.exit(f"too different: {', '.join(failed)}")
    print(f"{chunks} chunks of case {options.case} are the same")


if __name__ == "__main__":
    main()
