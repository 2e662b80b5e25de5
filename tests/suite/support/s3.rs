//! An S3 server in this process (s3s), on a loopback port and behind a [`Proxy`] that logs requests and
//! injects faults. The server checks signatures and stores objects as files in a temporary folder.

use std::net::TcpListener;
use std::ops::Deref;
use std::path::PathBuf;

use dor_atlas::store::{Addressing, S3Options, StoreRegistry};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;

pub use super::proxy::Fault;
use super::proxy::{Proxy, spawn_server_thread};

pub const ACCESS_KEY: &str = "test-access";
pub const SECRET_KEY: &str = "test-secret";
pub const BUCKET: &str = "bucket";

/// The embedded server with the bucket [`BUCKET`]. It stops when the process ends.
pub struct S3Server {
    proxy: Proxy,
    /// The endpoint of the server itself, without the proxy.
    direct_endpoint: String,
    folder: TempDir,
}

impl Deref for S3Server {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl S3Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let direct_endpoint = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Proxy::start(&direct_endpoint);
        listener.set_nonblocking(true).unwrap();
        spawn_server_thread(serve(listener, builder.build()));
        Self { proxy, direct_endpoint, folder }
    }

    /// The folder in which the objects of [`BUCKET`] are files.
    pub fn bucket_folder(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Options with which `dor` uses the server through the proxy.
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

    /// A store registry with the keys that the server accepts.
    pub fn stores(&self) -> StoreRegistry {
        self.stores_as(ACCESS_KEY, SECRET_KEY)
    }

    /// A store registry that does not go through the proxy.
    pub fn direct_stores(&self) -> StoreRegistry {
        let options =
            S3Options { endpoint_url: Some(self.direct_endpoint.clone()), ..self.options() };
        StoreRegistry::with_credentials(options, keys(ACCESS_KEY, SECRET_KEY))
    }

    /// A store registry with other keys.
    pub fn stores_as(&self, access: &str, secret: &str) -> StoreRegistry {
        StoreRegistry::with_credentials(self.options(), keys(access, secret))
    }

    /// The environment variables with which `dor` uses the server through the proxy.
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

    /// Files of the server that belong to multipart uploads neither completed nor aborted.
    pub fn unfinished(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("upload")).collect()
    }
}

/// Credentials that do not expire.
pub fn keys(access: &str, secret: &str) -> aws_credential_types::Credentials {
    aws_credential_types::Credentials::new(access, secret, None, None, "test")
}

async fn serve(listener: TcpListener, service: S3Service) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let service = service.clone();
        tokio::spawn(async move {
            let serving = Builder::new(TokioExecutor::new());
            let _ = serving.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
