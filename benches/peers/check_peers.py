"""Checks the peers against what the reference makes of the mini case.

    check_peers.py MINI_CASE MINI_EXPECTED RESEARCH_FOLDER WORK_FOLDER

MINI_CASE and MINI_EXPECTED are the unpacked test data, RESEARCH_FOLDER the research-grade files of
the former. The weights are computed here, by the definition: a target lies in the quad of T points
whose bilinear patch its direction meets; Newton's method finds where. Exits with 1 on a difference.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

HALF_WIDTH, MERCATOR_RADIUS, TILE = 20037508.342789244, 6378137.0, 128
FILL = np.float32(9.969209968386869e36)
HERE = Path(__file__).parent


def directions(longitudes: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
    """Unit vectors of points in radians."""
    flat = np.cos(latitudes)
    return np.stack([flat * np.cos(longitudes), flat * np.sin(longitudes), np.sin(latitudes)], -1)


def mercator_targets(n: int) -> np.ndarray:
    x = (np.arange(n) + 0.5) * (2 * HALF_WIDTH / n) - HALF_WIDTH
    latitudes = np.arctan(np.sinh(-x / MERCATOR_RADIUS))
    longitudes = x / MERCATOR_RADIUS
    return directions(*np.meshgrid(longitudes, latitudes)).reshape(-1, 3)


def newton(corners: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """u, v and t of [pair, 3] targets in [pair, 4, 3] quads; NaN where it does not converge."""
    a, b, c, d = np.moveaxis(corners, 1, 0)
    solution = np.tile([0.5, 0.5, 1.0], (len(targets), 1))
    step = np.full_like(solution, np.inf)
    for _ in range(50):
        u, v, t = solution[:, :1], solution[:, 1:2], solution[:, 2:]
        patch = (1 - u) * (1 - v) * a + u * (1 - v) * b + u * v * c + (1 - u) * v * d
        along_u = (1 - v) * (b - a) + v * (c - d)
        along_v = (1 - u) * (d - a) + u * (c - b)
        jacobian = np.stack([along_u, along_v, -targets], axis=-1)
        singular = abs(np.linalg.det(jacobian)) < 1e-14
        jacobian[singular] = np.eye(3)
        step = np.linalg.solve(jacobian, (t * targets - patch)[..., None])[..., 0]
        step[singular] = 0.0
        solution = solution + step
        if np.nanmax(abs(step)) < 1e-14:
            break
    solution[abs(step).max(axis=1) > 1e-9] = np.nan
    return solution


def level_weights(corners: np.ndarray, cells: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """S, row and col of a level, the latter from 1."""
    targets = mercator_targets(n)
    centers = corners.sum(axis=1)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    # A quad lies in the cap about its center that holds its corners.
    nearest = np.einsum("qi,qci->qc", centers, corners).min(axis=1) - 1e-9
    rows, quads = np.nonzero(targets @ centers.T >= nearest)
    u, v, t = newton(corners[quads], targets[rows]).T
    inside = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (t > 0)
    rows, quads, u, v = rows[inside], quads[inside], u[inside], v[inside]
    # On an edge between two quads either will do.
    rows, first = np.unique(rows, return_index=True)
    quads, u, v = quads[first], u[first], v[first]
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=1)
    return weights.ravel(), np.repeat(rows, 4) + 1, cells[quads].ravel() + 1


def write_weights(grid: Path, out: Path) -> None:
    with xr.open_dataset(grid) as full:
        points = directions(np.radians(full["TLONG"].values), np.radians(full["TLAT"].values))
    nlat, nlon = points.shape[:2]
    cells = np.arange(nlat * nlon).reshape(nlat, nlon)
    east = np.roll(cells, -1, axis=1)
    quads = np.stack([cells[:-1], east[:-1], east[1:], cells[1:]], axis=-1).reshape(-1, 4)
    corners = points.reshape(-1, 3)[quads]
    root = zarr.create_group(out, zarr_format=2, overwrite=True)
    for level in range(2):
        weights, rows, columns = level_weights(corners, quads, TILE * 2**level)
        used = weights != 0
        root.create_array(f"{level}/S", data=weights[used].astype("<f8"))
        root.create_array(f"{level}/row", data=rows[used].astype("<i4"))
        root.create_array(f"{level}/col", data=columns[used].astype("<i4"))


def run(program: str, *arguments: object) -> None:
    subprocess.run([sys.executable, HERE / program, *map(str, arguments)], check=True)


def check_pyramid(store: Path, expected: Path) -> None:
    steps = np.load(expected)
    root = zarr.open_group(store, mode="r")
    for level, group in root.groups():
        for name in ("DIC_SURF", "DIC", "PH", "FG", "pCO2SURF"):
            worst = [0.0, 0.0]
            for index, step in enumerate(steps[f"steps_{level}"]):
                right = steps[f"{name}_{level}"][index].astype("f8")
                left = group[name][112, :, 1, step % 12, step // 12]
                left = np.where(left == FILL, np.nan, left.astype("f8"))
                if (np.isnan(left) != np.isnan(right)).any():
                    different = int((np.isnan(left) != np.isnan(right)).sum())
                    sys.exit(f"{name}, level {level}, step {step}: fill of {different} cells")
                for band in range(2):
                    # The expected delta of the column is noisy; see derived quantities.
                    column = name == "DIC" and band == 0
                    scale = abs(right[1]) if column else abs(right[band])
                    difference = abs(left[band] - right[band]) / np.where(scale > 0, scale, 1)
                    worst[band] = max(worst[band], float(np.nanmax(difference)))
            print(f"level {level} {name:9} delta {worst[0]:.1e} experimental {worst[1]:.1e}")
            if worst[0] > (3e-7 if name == "DIC" else 1e-6) or worst[1] > 1e-6:
                sys.exit(f"{name}, level {level}: too different")


def check_series(series: Path, expected: Path) -> None:
    ours = json.loads(series.read_text())
    with expected.open(newline="") as table:
        rows = list(csv.DictReader(table))
    if ours["elapsed_month"] != [int(row["elapsed_month"]) for row in rows]:
        sys.exit("series: other months")
    right = np.array([float(row["DOR_efficiency"]) for row in rows])
    efficiency = float(abs(np.array(ours["DOR_efficiency"]) / right - 1).max())
    names = [f"uptake_{radius}" for radius in (500, 1000, 2000)]
    right = np.array([[float(row[name]) for name in names] for row in rows])
    uptake = float(abs(np.array(ours["FG_CO2_percent_cumulative"]) - right).max())
    print(f"efficiency {efficiency:.1e} relative, uptake {uptake:.1e} percentage points")
    if not (efficiency <= 1e-6 and uptake <= 1e-4):
        sys.exit("series: too different")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("case", "expected", "research", "work"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    grid, ssh = options.case / "grid.nc", options.case / "ssh.nc"
    weights, store = options.work / "weights.zarr", options.work / "peer.zarr"
    series = options.work / "series.json"

    write_weights(grid, weights)
    for peer in ("dask", "tuned"):
        print(peer)
        centers = options.case / "centers.csv"
        run(f"series_{peer}.py", options.research, grid, centers, 112, 4, series)
        check_series(series, options.expected / "series.csv")
        run(f"store2_{peer}.py", options.research, ssh, grid, weights, store)
        check_pyramid(store, options.expected / "pyramid.npz")


if __name__ == "__main__":
    main()
