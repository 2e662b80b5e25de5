// Reads series as the charts of the web page do: from `.zarray` alone, a chunk for each season.
//
//   node read-series.mjs URL VARIABLE POLYGON...

import { promisify } from "node:util";
import zarr from "zarr-js";
import { browser } from "./browser.mjs";
import { encoded, print } from "./output.mjs";

const SEASONS = [0, 1, 2, 3];

const [url, variable, ...polygons] = process.argv.slice(2);
const { open } = zarr(browser.fetch);
const chunk = promisify(await promisify(open)(`${url}/${variable}`));
const { shape } = await (await browser.fetch(`${url}/${variable}/.zarray`)).json();

const seasons = [];
for (const season of SEASONS) {
  const distances = shape.slice(3).map(() => 0);
  const all = await chunk([0, 0, season, ...distances]);
  const series = polygons.map((polygon) => [polygon, encoded(all.pick(null, Number(polygon), 0))]);
  seasons.push({ all: encoded(all), series: Object.fromEntries(series) });
}
print(seasons);
