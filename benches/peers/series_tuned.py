"""The reference's way of the efficiency (store 1) and the uptake by distance (store 3).

Both in one pass of xarray and dask over the fluxes of the research-grade files, two-dimensional
fields all, in tasks of 15 months. Prints one line of JSON; the series go to OUT.

    series_tuned.py RESEARCH_FOLDER GRID CENTERS_CSV POLYGON MONTH OUT.json

The time counts neither the start of the workers and their imports nor the distances.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr

from research import (
    MONTH_LENGTHS,
    fill_to_nan,
    make_pool,
    month_files,
    open_files,
    peak_memory,
    run_tasks,
)

NAMES = ("FG_CO2", "FG_ALT_CO2", "DIC_FLUX", "TAREA", "KMT")
# nmol/cm^2/s to mol/m^2/year
TO_MOL = 1e-9 * 1e4 * 86400 * 365
EARTH_RADIUS = 6371000.0
RADII = (500e3, 1000e3, 2000e3)
MONTHS_A_TASK = 15


def distances(grid: Path, longitude: float, latitude: float) -> np.ndarray:
    """Of every T cell from the center, in metres, by the haversine formula."""
    with xr.open_dataset(grid) as full:
        longitudes, latitudes = np.radians(full["TLONG"].values), np.radians(full["TLAT"].values)
    longitude, latitude = np.radians(longitude), np.radians(latitude)
    half_chord = (
        np.sin((latitudes - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(latitudes) * np.sin((longitudes - longitude) / 2) ** 2
    )
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(half_chord))


class Sums:
    """What every worker holds."""

    def __init__(self, distance: np.ndarray) -> None:
        self.masks = [(distance > 0) & (distance <= radius) for radius in RADII]

    def run(self, files: list[Path]) -> np.ndarray:
        """Rows of uptake by the sea, flux of DIC, uptake within each radius, and everywhere."""
        rows = []
        with open_files(files, NAMES) as dataset:
            # At once, as each load costs dask some 10 ms.
            dataset.load()
            area = fill_to_nan(dataset["TAREA"])
            sea = fill_to_nan(dataset["KMT"]) > 0
            for index in range(len(files)):
                step = dataset.isel(elapsed_time=index)
                uptake = (fill_to_nan(step["FG_CO2"]) - fill_to_nan(step["FG_ALT_CO2"])) * area
                flux = fill_to_nan(step["DIC_FLUX"]) * area
                uptake[np.isnan(uptake)] = 0.0
                rings = [uptake[mask].sum() for mask in self.masks]
                rows.append([uptake[sea].sum(), np.nansum(flux), *rings, uptake.sum()])
        return np.array(rows)


class Case:
    """The case that the command line names."""

    def __init__(self, doc: str) -> None:
        parser = argparse.ArgumentParser(description=doc.splitlines()[0])
        for name in ("research", "grid", "centers"):
            parser.add_argument(name, type=Path)
        for name in ("polygon", "month"):
            parser.add_argument(name, type=int)
        parser.add_argument("out", type=Path)
        parser.add_argument("--workers", type=int, default=2)
        options = parser.parse_args()
        self.workers, self.out, self.month = options.workers, options.out, options.month
        files = month_files(options.research, options.polygon, options.month)
        self.elapsed = np.array(sorted(files))
        self.files = [files[int(n)] for n in self.elapsed]
        with options.centers.open(newline="") as table:
            center = {int(row["polygon_id"]): row for row in csv.DictReader(table)}
        center = center[options.polygon]
        self.distance = distances(options.grid, float(center["lon"]), float(center["lat"]))

    def write(self, rows: np.ndarray) -> None:
        """Efficiency and uptake from the sums of each month."""
        sea, flux, *rings, everywhere = rows.T
        days = MONTH_LENGTHS[(self.elapsed + self.month - 1) % 12]
        years = days / 365
        # cm^2 to m^2 with the 1e-4; the uptake is into the ocean, hence the signs.
        added = np.cumsum(sea * TO_MOL * 1e-4 * years)
        removed = np.cumsum(flux * TO_MOL * 1e-4 * years)
        total = (everywhere * days).sum()
        uptake = 100 * np.cumsum(np.array(rings) * days, axis=1) / total
        series = {
            "elapsed_month": self.elapsed.tolist(),
            "DOR_efficiency": (-added / removed).astype("f4").astype("f8").tolist(),
            "FG_CO2_percent_cumulative": uptake.T.tolist(),
        }
        self.out.write_text(json.dumps(series))

    def report(self, seconds: float, count: int | None) -> None:
        result = {
            "files": len(self.files),
            "seconds": round(seconds, 3),
            "bytes_read": count,
            "bytes_of_files": sum(path.stat().st_size for path in self.files),
        }
        print(json.dumps(result | peak_memory()))


def main() -> None:
    case = Case(__doc__)
    with make_pool(case.workers, Sums, (case.distance,)) as pool:
        begin = time.perf_counter()
        starts = range(0, len(case.files), MONTHS_A_TASK)
        tasks = [case.files[i : i + MONTHS_A_TASK] for i in starts]
        results, count = run_tasks(pool, tasks)
        case.write(np.concatenate(results))
        seconds = time.perf_counter() - begin
    case.report(seconds, count)


if __name__ == "__main__":
    main()
