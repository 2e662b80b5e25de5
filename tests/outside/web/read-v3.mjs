// Reads chunks of a Zarr v3 store with zarrita.
//
//   node read-v3.mjs URL REQUESTS-JSON      (requests: [{"array": "0/FG", "chunk": [112, 0, ...]}, ...])

import * as zarr from "zarrita";
import { browser } from "./browser.mjs";
import { base64, print } from "./output.mjs";

const [url, text] = process.argv.slice(2);
const files = new zarr.FetchStore(url, { fetch: browser.fetch });
const store = await zarr.withConsolidatedMetadata(files, { format: "v3" });
const root = zarr.root(store);

const answers = [];
for (const { array: path, chunk: position } of JSON.parse(text)) {
  const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
  const chunk = await array.getChunk(position);
  const { dtype, shape, chunks, fillValue, dimensionNames } = array;
  const values = ArrayBuffer.isView(chunk.data) ? base64(chunk.data) : [...chunk.data];
  answers.push({ dtype, shape, chunks, fillValue, dimensionNames, values });
}
const group = await zarr.open.v3(root, { kind: "group" });
print({ attributes: group.attrs, contents: store.contents(), answers });
