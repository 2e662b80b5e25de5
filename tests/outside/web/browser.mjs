// The little of a browser that the libraries ask for, as strict about CORS as a browser is.

const ORIGIN = "https://map.example";

async function fetchAcrossOrigins(resource, options) {
  const request = new Request(resource, options);
  request.headers.set("Origin", ORIGIN);
  const response = await fetch(request);
  const allowed = response.headers.get("Access-Control-Allow-Origin");
  if (allowed !== "*" && allowed !== ORIGIN) {
    throw new TypeError(`no CORS header: ${response.status} ${request.url}`);
  }
  return response;
}

export const browser = { fetch: fetchAcrossOrigins, devicePixelRatio: 1 };
