// The tiles of @carbonplan/maps without a GPU: the library reads, textures keep what they are given.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { compileFunction } from "node:vm";
import { browser } from "./browser.mjs";

// Pixels on the screen for a tile, whatever the tile holds.
const TILE_ON_SCREEN = 512;
const MIDDLE = { lng: 0, lat: 0 };

/** zarr-js that opens each pyramid once: it lists a million keys, which takes seconds, and anew for every variable. */
function openingOnce(zarr) {
  const opened = new Map();
  return (...options) => {
    const reader = zarr(...options);
    const openGroup = (source, callback) => {
      if (!opened.has(source)) {
        opened.set(
          source,
          new Promise((resolve) => reader.openGroup(source, (...answer) => resolve(answer))),
        );
      }
      opened.get(source).then((answer) => callback(...answer));
    };
    return { ...reader, openGroup };
  };
}

/** `createTiles`, which the library keeps to itself; its <Raster> calls it as we do. */
function createTilesOfLibrary() {
  const file = createRequire(import.meta.url).resolve("@carbonplan/maps");
  const require = createRequire(file);
  const replaced = { "mapbox-gl": {}, "zarr-js": openingOnce(require("zarr-js")) };
  const library = { exports: {} };
  const source = `${readFileSync(file, "utf8")}\nexports.createTiles = createTiles;`;
  compileFunction(source, ["exports", "require", "module"], { filename: file })(
    library.exports,
    (name) => replaced[name] ?? require(name),
    library,
  );
  return library.exports.createTiles;
}

globalThis.window = browser;
const createTiles = createTilesOfLibrary();

function texture(initial) {
  const update = (data) => {
    update.data = data;
  };
  update(initial);
  return update;
}

class Screen {
  drawn = [];

  regl() {
    const nothing = () => undefined;
    const draw = (props) => {
      this.drawn = props;
    };
    const prepare = () => draw;
    const onFrame = (callback) => {
      this.frame = callback;
    };
    return Object.assign(prepare, {
      texture,
      buffer: texture,
      this: nothing,
      prop: nothing,
      context: nothing,
      frame: onFrame,
    });
  }

  /** As large as all tiles of a level. */
  resize(level) {
    const size = TILE_ON_SCREEN * 2 ** level;
    this.frame({ viewportWidth: size, viewportHeight: size });
  }
}

class Loading {
  #pending = 0;
  #waiting = [];

  set = () => {
    this.#pending += 1;
  };

  clear = () => {
    this.#pending -= 1;
    if (this.#pending === 0) this.#waiting.splice(0).forEach((resolve) => resolve());
  };

  done() {
    if (this.#pending === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** The map of one variable. */
export class PyramidMap {
  #screen = new Screen();
  #loading = new Loading();

  static async open(source, variable, selector) {
    const map = new PyramidMap();
    const nothing = () => undefined;
    map.variable = variable;
    map.tiles = createTiles(map.#screen.regl(), {
      source,
      variable,
      selector,
      display: true,
      clim: [0, 1],
      opacity: 1,
      colormap: [[0, 0, 0]],
      mode: "texture",
      setLoading: map.#loading.set,
      clearLoading: map.#loading.clear,
      invalidate: nothing,
      invalidateRegion: nothing,
    });
    await map.tiles.initialized;
    return map;
  }

  levels() {
    return Object.keys(this.tiles.loaders).map(Number);
  }

  /** All tiles of a level as the GPU would get them: rows downwards, columns to the right. */
  async draw(selector, level) {
    this.tiles.updateSelector({ selector });
    await this.#look(level);
    this.tiles.draw();
    return this.#screen.drawn.map((drawn) => ({
      level: drawn.level,
      offset: drawn.offset,
      values: drawn[this.variable].data,
    }));
  }

  async query(region, selector, level) {
    await this.#look(level);
    return this.tiles.queryRegion(region, selector);
  }

  async #look(level) {
    this.#screen.resize(level);
    this.tiles.updateCamera({ center: MIDDLE, zoom: level });
    await this.#loading.done();
  }
}
