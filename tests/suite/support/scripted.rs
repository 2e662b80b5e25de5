//! An HTTP server whose responses a test chooses freely, valid or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The request line and headers of a request, as received.
#[derive(Clone, Debug)]
pub struct RawRequest(pub String);

impl RawRequest {
    /// The request line without the version: `METHOD path?query`.
    pub fn line(&self) -> &str {
        self.0.split(" HTTP/").next().unwrap_or_default()
    }
}

/// A response of the server.
pub enum Answer {
    /// Status (code and reason), header lines and body. The server adds `Content-Length` if the headers
    /// have none.
    Whole(&'static str, String, Vec<u8>),
    /// A status, and a body that repeats these bytes until the client disconnects.
    Endless(&'static str, Vec<u8>),
    /// No response; the connection stays open for 120 seconds.
    Nothing,
}

/// A response with an XML body.
pub fn xml(status: &'static str, body: &str) -> Answer {
    Answer::Whole(status, "Content-Type: application/xml\r\n".to_owned(), body.into())
}

/// A response with an S3 error of this code.
pub fn error(status: &'static str, code: &str) -> Answer {
    xml(status, &format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>"))
}

/// The server. It stops when the process ends.
pub struct Scripted {
    pub endpoint: String,
    log: Arc<Mutex<Vec<RawRequest>>>,
}

impl Scripted {
    /// Starts a server that answers each request with the result of `script`.
    pub fn start(script: impl Fn(&RawRequest) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<RawRequest>>>::default();
        let (log, script) = (requests.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (log, script) = (log.clone(), script.clone());
                std::thread::spawn(move || serve(socket, &log, &*script));
            }
        });
        Self { endpoint, log: requests }
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<RawRequest> {
        self.log.lock().unwrap().clone()
    }

    /// The environment variables with which `dor` uses this server as S3.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let variables = [
            ("DOR_S3_ENDPOINT_URL", self.endpoint.as_str()),
            ("DOR_S3_MAX_RETRIES", "0"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "the-session-token"),
            ("AWS_REGION", "us-east-1"),
        ];
        variables.map(|(name, value)| (name, value.to_owned())).into()
    }
}

fn serve(socket: TcpStream, log: &Mutex<Vec<RawRequest>>, script: &dyn Fn(&RawRequest) -> Answer) {
    let mut from = BufReader::new(socket.try_clone().unwrap());
    let mut to = socket;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match from.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => {}
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
        }
        if from.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let request = RawRequest(head);
        log.lock().unwrap().push(request.clone());
        let is_head = request.0.starts_with("HEAD ");
        let sent = match script(&request) {
            Answer::Whole(status, headers, body) => {
                let length = match headers.to_ascii_lowercase().contains("content-length:") {
                    true => String::new(),
                    false => format!("Content-Length: {}\r\n", body.len()),
                };
                let head = format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n");
                let body = if is_head { &[][..] } else { &body };
                to.write_all(head.as_bytes()).and_then(|()| to.write_all(body))
            }
            Answer::Endless(status, bytes) => {
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
                let mut sent = to.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = to.write_all(&bytes);
                }
                return;
            }
            Answer::Nothing => {
                std::thread::sleep(Duration::from_secs(120));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
