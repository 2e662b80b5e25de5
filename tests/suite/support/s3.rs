//! A real S3 server in this process, on a loopback port: signatures are checked, files lie in a
//! temporary folder, requests are logged, and failures can be ordered.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dor_atlas::store::{Addressing, S3Options, Stores};
use hyper::service::{Service, service_fn};
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;

pub const ACCESS_KEY: &str = "test-access";
pub const SECRET_KEY: &str = "test-secret";
pub const BUCKET: &str = "bucket";

/// An answer given in place of the server's; with status 0 none, and the connection is closed.
#[derive(Clone)]
pub struct Fault {
    pub status: u16,
    pub code: &'static str,
}

#[derive(Default)]
struct Script {
    log: Vec<String>,
    /// `Content-Type` of requests, by `METHOD path`.
    types: BTreeMap<String, String>,
    faults: VecDeque<Fault>,
    /// Each for one request of so many.
    now_and_then: Vec<(usize, Fault)>,
    served: usize,
    /// From the moment on that so many requests have been served.
    always: Option<(usize, Fault)>,
}

impl Script {
    fn next_fault(&mut self) -> Option<Fault> {
        if let Some(fault) = self.faults.pop_front() {
            return Some(fault);
        }
        self.served += 1;
        let due = self.now_and_then.iter().find(|(of, _)| self.served.is_multiple_of(*of));
        if let Some((_, fault)) = due {
            return Some(fault.clone());
        }
        let (served, fault) = self.always.as_mut()?;
        match served.checked_sub(1) {
            Some(fewer) => {
                *served = fewer;
                None
            }
            None => Some(fault.clone()),
        }
    }
}

/// The server; stops with the process. Its bucket is [`BUCKET`].
pub struct S3Server {
    pub endpoint: String,
    folder: TempDir,
    script: Arc<Mutex<Script>>,
}

impl S3Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let script = Arc::<Mutex<Script>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, service, shared));
        });
        Self { endpoint, folder, script }
    }

    /// Where the objects of [`BUCKET`] lie as files.
    pub fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint_url: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            addressing: Some(Addressing::Path),
            part_size: Some(5 << 20),
            max_retries: Some(3),
            ..S3Options::default()
        }
    }

    /// With the keys that the server knows.
    pub fn stores(&self) -> Stores {
        self.stores_as(ACCESS_KEY, SECRET_KEY)
    }

    pub fn stores_as(&self, access: &str, secret: &str) -> Stores {
        Stores::with_credentials(self.options(), keys(access, secret))
    }

    /// Where the objects of the bucket lie.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// What the program needs in its environment to use the server.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DOR_S3_ENDPOINT_URL", self.endpoint.clone()),
            ("DOR_S3_ADDRESSING", "path".to_owned()),
            ("DOR_S3_MAX_RETRIES", "1".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// `METHOD path?query` of the requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().log)
    }

    /// The content type that came with `METHOD path`.
    pub fn content_type(&self, request: &str) -> Option<String> {
        self.script.lock().unwrap().types.get(request).cloned()
    }

    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.script.lock().unwrap().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Lets one request of `of` fail from now on.
    pub fn fail_now_and_then(&self, of: usize, fault: Fault) {
        self.script.lock().unwrap().now_and_then.push((of, fault));
    }

    pub fn fail_always(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    pub fn fail_after(&self, served: usize, fault: Fault) {
        self.script.lock().unwrap().always = Some((served, fault));
    }

    pub fn recover(&self) {
        self.script.lock().unwrap().always = None;
    }

    /// Files of the server that belong to uploads begun and neither completed nor aborted.
    pub fn unfinished(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("upload")).collect()
    }
}

/// Keys that do not expire.
pub fn keys(access: &str, secret: &str) -> aws_credential_types::Credentials {
    aws_credential_types::Credentials::new(access, secret, None, None, "test")
}

async fn serve(listener: TcpListener, service: S3Service, script: Arc<Mutex<Script>>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (service, script) = (service.clone(), Arc::clone(&script));
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let fault = {
                let mut script = script.lock().unwrap();
                script.log.push(format!("{} {}", request.method(), request.uri()));
                if let Some(kind) = request.headers().get("content-type") {
                    let request = format!("{} {}", request.method(), request.uri().path());
                    script.types.insert(request, kind.to_str().unwrap().to_owned());
                }
                script.next_fault()
            };
            let served = service.clone();
            async move {
                let Some(Fault { status, code }) = fault else {
                    return Ok(Service::call(&served, request).await.unwrap_or_else(|_| {
                        let mut failed = Response::new(s3s::Body::empty());
                        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        failed
                    }));
                };
                if status == 0 {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset));
                }
                let text =
                    format!("<Error><Code>{code}</Code><Message>as ordered</Message></Error>");
                let mut failed = Response::new(s3s::Body::from(text));
                *failed.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(failed)
            }
        });
        tokio::spawn(async move {
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}
