//! Between the program and a server: logs what is asked, and lets some of it go wrong.

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

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// This status with this code of S3, in place of the server's answer.
    Answer(u16, &'static str),
    /// The connection is closed before all of the request has been read; the server hears nothing.
    Cut,
    /// The server does what it is asked, but its answer is lost.
    Lost,
    /// The server does what it is asked, but the answer has the ETag of something else.
    WrongEtag,
    /// A listing also has this, which the server itself would not hold.
    Listed(&'static str),
    /// All goes well, after this time; also when the client is gone by then.
    Late(Duration),
}

/// What goes through a proxy, as far as faults depend on it.
pub struct Asked<'a> {
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// `Content-Length`.
    pub length: u64,
    /// Temporary credentials.
    pub token: Option<&'a str>,
}

type Rule = Box<dyn FnMut(&Asked<'_>) -> Option<Fault> + Send>;

#[derive(Default)]
struct Script {
    log: Vec<String>,
    /// `Content-Type` of requests, by `METHOD path`.
    types: BTreeMap<String, String>,
    next: VecDeque<Fault>,
    rules: Vec<Rule>,
    drops_amazon_headers: bool,
    /// Held by a conditional write: the embedded server looks first and writes later, where S3 does
    /// both at once.
    conditional: Arc<tokio::sync::Mutex<()>>,
}

impl Script {
    fn fault(&mut self, asked: &Asked<'_>) -> Option<Fault> {
        self.next.pop_front().or_else(|| self.rules.iter_mut().find_map(|rule| rule(asked)))
    }
}

/// The proxy; stops with the process.
pub struct Proxy {
    pub endpoint: String,
    script: Arc<Mutex<Script>>,
}

impl Proxy {
    /// Before the server at `http://ADDRESS`. Requests keep their `Host`, which is signed.
    pub fn before(server: &str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let script = Arc::<Mutex<Script>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&script);
        on_its_own_thread(serve(listener, server, shared));
        Self { endpoint, script }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// `METHOD path?query` of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.script().log)
    }

    /// The content type that came with `METHOD path`.
    pub fn content_type(&self, request: &str) -> Option<String> {
        self.script().types.get(request).cloned()
    }

    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.script().next.extend(std::iter::repeat_n(fault, times));
    }

    /// From now on, and in no other way.
    pub fn fail_always(&self, fault: Fault) {
        self.recover();
        self.fail_when(move |_| Some(fault));
    }

    /// From the moment on that so many requests have been served, and in no other way.
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

    /// Lets requests fail by chance: each fault with its share of them.
    pub fn fail_by_chance(&self, seed: u64, faults: &[(f64, Fault)]) {
        let mut random = StdRng::seed_from_u64(seed);
        let faults = faults.to_vec();
        self.fail_when(move |asked| {
            let mut chance: f64 = random.random();
            let hit = faults.iter().find(|(share, _)| {
                chance -= share;
                chance < 0.0
            });
            // Only what writes an object is answered with the error of one; not the end of an upload, which is
            // then tried as often as a request may be, and its object not once more.
            hit.map(|(_, fault)| *fault).filter(|fault| {
                let writes = asked.method == Method::PUT
                    || asked.method == Method::POST && !asked.target.contains("uploadId=");
                !matches!(fault, Fault::Answer(200, _)) || writes
            })
        });
    }

    /// Asks `rule` about every request from now on.
    pub fn fail_when(&self, rule: impl FnMut(&Asked<'_>) -> Option<Fault> + Send + 'static) {
        self.script().rules.push(Box::new(rule));
    }

    /// Drops `x-amz-checksum-*` and `x-amz-meta-*` of objects that are sent whole.
    pub fn drop_amazon_headers(&self) {
        self.script().drops_amazon_headers = true;
    }

    pub fn recover(&self) {
        self.script().rules.clear();
    }
}

/// Runs a server until the process ends.
pub fn on_its_own_thread(server: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap().block_on(server);
    });
}

async fn serve(listener: TcpListener, server: String, script: Arc<Mutex<Script>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (client, server, script) = (client.clone(), server.clone(), Arc::clone(&script));
        let pass =
            move |request| pass(request, client.clone(), server.clone(), Arc::clone(&script));
        tokio::spawn(async move {
            let serving = Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(socket), service_fn(pass)).await;
        });
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn pass(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Full<Bytes>>,
    server: String,
    script: Arc<Mutex<Script>>,
) -> Result<Response<Full<Bytes>>, Failure> {
    let fault = noted(&request, &mut script.lock().unwrap());
    match fault {
        Some(Fault::Answer(status, code)) => {
            // Who closes early is not heard: the body is read.
            let _ = request.into_body().collect().await;
            let text = format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>");
            let mut answer = Response::new(Full::new(text.into()));
            *answer.status_mut() = StatusCode::from_u16(status)?;
            return Ok(answer);
        }
        Some(Fault::Cut) => {
            let _ = request.body_mut().frame().await;
            return Err("cut".into());
        }
        _ => {}
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // A server completes a request that it has read, whatever becomes of the client.
    tokio::spawn(forward((head, body), fault, client, server, script)).await?
}

async fn forward(
    (mut head, body): (Parts, Bytes),
    fault: Option<Fault>,
    client: Client<HttpConnector, Full<Bytes>>,
    server: String,
    script: Arc<Mutex<Script>>,
) -> Result<Response<Full<Bytes>>, Failure> {
    if let Some(Fault::Late(time)) = fault {
        tokio::time::sleep(time).await;
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.headers.remove(CONNECTION);
    if script.lock().unwrap().drops_amazon_headers
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
    let in_turn = script.lock().unwrap().conditional.clone();
    let _turn = if conditional { Some(in_turn.lock().await) } else { None };
    let (mut head, body) =
        client.request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    let mut body = body.collect().await?.to_bytes();
    match fault {
        Some(Fault::Listed(more)) => {
            let end = "</ListBucketResult>";
            let text = String::from_utf8_lossy(&body).replacen(end, &format!("{more}{end}"), 1);
            body = text.into();
            head.headers.remove(CONTENT_LENGTH);
        }
        Some(Fault::Lost) => return Err("lost".into()),
        Some(Fault::WrongEtag) => {
            head.headers.insert(ETAG, "\"0123456789abcdef0123456789abcdef\"".parse()?);
        }
        _ => {}
    }
    Ok(Response::from_parts(head, Full::new(body)))
}

fn noted(request: &Request<Incoming>, script: &mut Script) -> Option<Fault> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (method, uri) = (request.method(), request.uri());
    script.log.push(format!("{method} {uri}"));
    if let Some(kind) = header("content-type") {
        script.types.insert(format!("{method} {}", uri.path()), kind.to_owned());
    }
    let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    script.fault(&Asked { method, target, length, token: header("x-amz-security-token") })
}
