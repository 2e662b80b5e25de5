// What the tests compare: the very bytes of the values, and what JavaScript takes for fill.

const FILL = 9.969209968386869e36;

/** Whether zarr-js made the array up, for want of a chunk: then it is no typed one. */
export function isAbsent(array) {
  return !ArrayBuffer.isView(array.data);
}

/** An ndarray, view or not, as little-endian bytes in base64, in row-major order. */
export function encoded(array) {
  if (isAbsent(array)) throw new Error("a chunk is absent");
  const values = new array.data.constructor(array.size);
  copy(array, values, 0);
  return {
    shape: array.shape,
    filled: values.reduce((count, value) => count + (value === FILL), 0),
    bytes: base64(values),
  };
}

export function base64(values) {
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64");
}

export function print(result) {
  process.stdout.write(JSON.stringify(result));
}

function copy(array, values, start) {
  if (array.dimension === 1) {
    for (let i = 0; i < array.shape[0]; i += 1) values[start + i] = array.get(i);
    return start + array.shape[0];
  }
  for (let i = 0; i < array.shape[0]; i += 1) {
    start = copy(array.pick(i), values, start);
  }
  return start;
}
