//! An HTTP proxy between `dor` and a server. It logs requests and injects faults.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, ETAG, IF_MATCH, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A fault that the proxy injects into one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The proxy answers with this status and this S3 error code; the server gets no request.
    Answer(u16, &'static str),
    /// The proxy closes the connection before it has read the whole request; the server gets no request.
    Cut,
    /// The server processes the request, and the proxy drops the response.
    LostResponse,
    /// The server processes the request, and the proxy replaces the ETag of the response by a wrong one.
    WrongEtag,
    /// The proxy adds this XML to a listing, for keys that the server itself cannot store.
    ExtraListing(&'static str),
    /// The proxy forwards the request after this delay, even if the client has disconnected by then.
    Late(Duration),
    /// The request succeeds after [`Proxy::release`], even if the client is gone by then.
    Held,
}

/// The parts of a request on which a fault can depend.
pub struct RequestHead<'a> {
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// `Content-Length` in bytes; 0 without this header.
    pub length: u64,
    /// `x-amz-security-token`, the session token of temporary credentials.
    pub token: Option<&'a str>,
}

type Rule = Box<dyn FnMut(&RequestHead<'_>) -> Option<Fault> + Send>;

#[derive(Default)]
struct ProxyState {
    /// `METHOD path?query` of each request.
    log: Vec<String>,
    /// `Content-Type` of requests, by `METHOD path`.
    types: BTreeMap<String, String>,
    /// Faults of the next requests, one each; used before `rules`.
    next: VecDeque<Fault>,
    /// The first rule that returns a fault decides.
    rules: Vec<Rule>,
    drops_amazon_headers: bool,
    /// Whether held requests go on.
    is_released: bool,
    /// Held during a conditional write. S3 checks the condition and writes in one step, the embedded
    /// server in two, so the proxy forwards conditional writes one at a time.
    conditional_write: Arc<tokio::sync::Mutex<()>>,
}

impl ProxyState {
    fn fault(&mut self, request: &RequestHead<'_>) -> Option<Fault> {
        self.next.pop_front().or_else(|| self.rules.iter_mut().find_map(|rule| rule(request)))
    }
}

/// The proxy. It stops when the process ends.
pub struct Proxy {
    pub endpoint: String,
    state: Arc<Mutex<ProxyState>>,
}

impl Proxy {
    /// Starts a proxy in front of the server at `http://ADDRESS`. It keeps the `Host` header of
    /// requests, because the signature covers it.
    pub fn start(server: &str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let state = Arc::<Mutex<ProxyState>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&state);
        spawn_server_thread(serve(listener, server, shared));
        Self { endpoint, state }
    }

    fn state(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap()
    }

    /// `METHOD path?query` of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// The `Content-Type` of the last request `METHOD path`.
    pub fn content_type(&self, request: &str) -> Option<String> {
        self.state().types.get(request).cloned()
    }

    /// Injects `fault` into each of the next `times` requests.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.state().next.extend(std::iter::repeat_n(fault, times));
    }

    /// Removes all rules and injects `fault` into every request from now on.
    pub fn fail_always(&self, fault: Fault) {
        self.recover();
        self.fail_when(move |_| Some(fault));
    }

    /// Removes all rules and injects `fault` into every request after the next `served` ones.
    pub fn fail_after(&self, served: usize, fault: Fault) {
        let mut left = served;
        self.recover();
        self.fail_when(move |_| match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                None
            }
            None => Some(fault),
        });
    }

    /// Injects each fault into its share (0 to 1) of the requests, chosen at random.
    pub fn fail_randomly(&self, seed: u64, faults: &[(f64, Fault)]) {
        let mut random = StdRng::seed_from_u64(seed);
        let faults = faults.to_vec();
        self.fail_when(move |request| {
            let mut chance: f64 = random.random();
            let hit = faults.iter().find(|(share, _)| {
                chance -= share;
                chance < 0.0
            });
            // A 200 with an error in its body is a response to writes only. It is not injected into
            // CompleteMultipartUpload: there the client retries the request, but not the object.
            hit.map(|(_, fault)| *fault).filter(|fault| {
                let writes = request.method == Method::PUT
                    || request.method == Method::POST && !request.target.contains("uploadId=");
                !matches!(fault, Fault::Answer(200, _)) || writes
            })
        });
    }

    /// Adds a rule: it is called for every request from now on and may return a fault.
    pub fn fail_when(&self, rule: impl FnMut(&RequestHead<'_>) -> Option<Fault> + Send + 'static) {
        self.state().rules.push(Box::new(rule));
    }

    /// From now on, removes the headers `x-amz-checksum-*` and `x-amz-meta-*` from PUT requests, except
    /// from those of parts.
    pub fn drop_amazon_headers(&self) {
        self.state().drops_amazon_headers = true;
    }

    /// Lets held requests go on.
    pub fn release(&self) {
        self.state().is_released = true;
    }

    /// Removes all rules.
    pub fn recover(&self) {
        self.state().rules.clear();
    }
}

/// Runs `server` on a thread of its own until the process ends.
pub fn spawn_server_thread(server: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap().block_on(server);
    });
}

async fn serve(listener: TcpListener, server: String, state: Arc<Mutex<ProxyState>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (client, server, state) = (client.clone(), server.clone(), Arc::clone(&state));
        let handler =
            move |request| handle(request, client.clone(), server.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let serving = Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(socket), service_fn(handler)).await;
        });
    }
}

type ProxyError = Box<dyn std::error::Error + Send + Sync>;

async fn handle(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Full<Bytes>>,
    server: String,
    state: Arc<Mutex<ProxyState>>,
) -> Result<Response<Full<Bytes>>, ProxyError> {
    let fault = log_request(&request, &mut state.lock().unwrap());
    match fault {
        Some(Fault::Answer(status, code)) => {
            // Read the body: a client that still sends may miss a response that comes earlier.
            let _ = request.into_body().collect().await;
            let body = format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>");
            let mut response = Response::new(Full::new(body.into()));
            *response.status_mut() = StatusCode::from_u16(status)?;
            return Ok(response);
        }
        Some(Fault::Cut) => {
            let _ = request.body_mut().frame().await;
            return Err("cut".into());
        }
        _ => {}
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // In a task of its own: a server processes a request that it has read even if the client
    // disconnects.
    tokio::spawn(forward((head, body), fault, client, server, state)).await?
}

async fn forward(
    (mut head, body): (Parts, Bytes),
    fault: Option<Fault>,
    client: Client<HttpConnector, Full<Bytes>>,
    server: String,
    state: Arc<Mutex<ProxyState>>,
) -> Result<Response<Full<Bytes>>, ProxyError> {
    if let Some(Fault::Late(time)) = fault {
        tokio::time::sleep(time).await;
    }
    while fault == Some(Fault::Held) && !state.lock().unwrap().is_released {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.headers.remove(CONNECTION);
    if state.lock().unwrap().drops_amazon_headers
        && head.method == Method::PUT
        && !target.contains("partNumber=")
    {
        let dropped = ["x-amz-checksum-", "x-amz-meta-"];
        let names =
            head.headers.keys().filter(|name| dropped.iter().any(|d| name.as_str().starts_with(d)));
        for name in names.cloned().collect::<Vec<_>>() {
            head.headers.remove(name);
        }
    }
    head.uri = format!("http://{server}{target}").parse()?;
    let conditional = [IF_MATCH, IF_NONE_MATCH].iter().any(|name| head.headers.contains_key(name));
    let mutex = state.lock().unwrap().conditional_write.clone();
    let _guard = if conditional { Some(mutex.lock().await) } else { None };
    let (mut head, body) =
        client.request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    let mut body = body.collect().await?.to_bytes();
    match fault {
        Some(Fault::ExtraListing(more)) => {
            let end = "</ListBucketResult>";
            let text = String::from_utf8_lossy(&body).replacen(end, &format!("{more}{end}"), 1);
            body = text.into();
            head.headers.remove(CONTENT_LENGTH);
        }
        Some(Fault::LostResponse) => return Err("lost".into()),
        Some(Fault::WrongEtag) => {
            head.headers.insert(ETAG, "\"0123456789abcdef0123456789abcdef\"".parse()?);
        }
        _ => {}
    }
    Ok(Response::from_parts(head, Full::new(body)))
}

/// Adds a request to the log and returns the fault to inject into it.
fn log_request(request: &Request<Incoming>, state: &mut ProxyState) -> Option<Fault> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (method, uri) = (request.method(), request.uri());
    state.log.push(format!("{method} {uri}"));
    if let Some(kind) = header("content-type") {
        state.types.insert(format!("{method} {}", uri.path()), kind.to_owned());
    }
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    state.fault(&RequestHead { method, target, length, token: header("x-amz-security-token") })
}
