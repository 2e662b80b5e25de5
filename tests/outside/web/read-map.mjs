// Draws all tiles of all levels of a pyramid for each variable and selector, then asks for the values in circles.
//
//   node read-map.mjs URL VARIABLES-JSON SELECTORS-JSON REGIONS-JSON
//
// A region: {"level": 1, "center": [longitude, latitude], "radius": kilometres, "selector": {...}}.

import * as turf from "@turf/turf";
import { PyramidMap } from "./maps.mjs";
import { encoded, isAbsent, print } from "./output.mjs";

const units = "kilometers";
const [url, ...texts] = process.argv.slice(2);
const [variables, selectors, regions] = texts.map((text) => JSON.parse(text));

async function draw(map) {
  const drawn = [];
  for (const selector of selectors) {
    for (const level of map.levels()) {
      for (const tile of await map.draw(selector, level)) {
        const values = isAbsent(tile.values) ? null : encoded(tile.values);
        drawn.push({ ...tile, selector, values });
      }
    }
  }
  return drawn;
}

async function query(map) {
  const inside = [];
  for (const { level, center, radius, selector } of regions) {
    const [lng, lat] = center;
    const properties = { center: { lng, lat }, radius, units };
    const circle = turf.circle(center, radius, { units, properties });
    inside.push(await map.query(circle, selector, level));
  }
  return inside;
}

const maps = {};
for (const variable of variables) {
  const map = await PyramidMap.open(url, variable, selectors[0]);
  const { coordinates, dimensions, fillValue } = map.tiles;
  const drawn = await draw(map);
  maps[variable] = { coordinates, dimensions, fillValue, drawn, inside: await query(map) };
}
print(maps);
