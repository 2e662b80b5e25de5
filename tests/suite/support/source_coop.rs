//! The proxy of Source Cooperative in front of a MinIO. It uses `multistore`, the crate that the service
//! itself uses, with the same mapping of `/account/product/key` and with temporary credentials. It does
//! not use code of `dor`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use chrono::Utc;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use multistore::api::response::BucketEntry;
use multistore::auth::TemporaryCredentialResolver;
use multistore::backend::{
    ForwardResponse, ProxyBackend, RawResponse, build_signer, create_builder,
};
use multistore::error::ProxyError;
use multistore::proxy::{GatewayResponse, ProxyGateway};
use multistore::registry::{BucketRegistry, CredentialRegistry, ResolvedBucket};
use multistore::route_handler::{ForwardRequest, ProxyResponseBody, RequestInfo};
use multistore::types::{
    BucketConfig, ResolvedIdentity, RoleConfig, S3Operation, StoredCredential, TemporaryCredentials,
};
use multistore_path_mapping::{MappedRegistry, PathMapping};
use object_store::list::PaginatedListStore;
use object_store::signer::Signer;
use percent_encoding::percent_decode_str;

use super::minio::Minio;
use super::proxy::spawn_server_thread;

/// Access key, secret key and session token with permission to write.
const CREDENTIALS: (&str, &str, &str) = ("coop-key", "coop-secret", "coop-session-token");
const SEPARATOR: &str = ":";

/// The environment variables with the credentials of a client.
pub fn variables() -> Vec<(&'static str, String)> {
    let (key, secret, token) = CREDENTIALS;
    let variables = [
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_SESSION_TOKEN", token),
        ("AWS_REGION", "us-east-1"),
    ];
    variables.map(|(name, value)| (name, value.to_owned())).into()
}

/// Starts a proxy and returns its endpoint. It has one account, named as the bucket of `minio`, with one
/// product, whose objects are below `product/` in the bucket.
pub fn start_proxy(minio: &Minio, product: &str) -> String {
    let (key, secret) = minio.keys();
    let options = [
        ("endpoint", minio.endpoint.as_str()),
        ("bucket_name", &minio.bucket),
        ("region", "us-east-1"),
        ("access_key_id", key),
        ("secret_access_key", secret),
        ("allow_http", "true"),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = BucketConfig {
        name: format!("{}{SEPARATOR}{product}", minio.bucket),
        backend_type: "s3".to_owned(),
        backend_prefix: Some(product.to_owned()),
        anonymous_access: false,
        allowed_roles: Vec::new(),
        backend_options: HashMap::from(options),
    };
    let mapping = PathMapping {
        bucket_segments: 2,
        bucket_separator: SEPARATOR.to_owned(),
        display_bucket_segments: 1,
    };
    let products = MappedRegistry::new(SingleProduct(Arc::new(config)), mapping.clone());
    let backend = Backend(reqwest::Client::builder().no_proxy().build().unwrap());
    let gateway = ProxyGateway::new(backend, products, NoStoredCredentials, None);
    let gateway = Arc::new(gateway.with_credential_resolver(SessionTokens));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    spawn_server_thread(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (gateway, mapping) = (gateway.clone(), mapping.clone());
            let handler = move |request| respond(request, gateway.clone(), mapping.clone());
            tokio::spawn(async move {
                let serving = Builder::new(TokioExecutor::new());
                let _ = serving.serve_connection(TokioIo::new(socket), service_fn(handler)).await;
            });
        }
    });
    endpoint
}

type Gateway = ProxyGateway<Backend, MappedRegistry<SingleProduct>, NoStoredCredentials>;

async fn respond(
    request: Request<Incoming>,
    gateway: Arc<Gateway>,
    mapping: PathMapping,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The gateway expects decoded keys, and checks signatures over the encoded path.
    let sent = head.uri.path();
    let name = percent_decode_str(sent).decode_utf8_lossy();
    let mapped = mapping.rewrite_request(&name, head.uri.query());
    let (path, query) = (&*mapped.path, mapped.query.as_deref());
    let info = RequestInfo::new(&head.method, path, query, &head.headers, None)
        .with_signing_path(sent)
        .with_signing_query(mapped.signing_query.as_deref());
    let collected = async |body: Bytes| Ok::<_, Infallible>(body);
    let (status, headers, body) = match gateway.handle_request(&info, body, collected).await {
        GatewayResponse::Forward(response) => (response.status, response.headers, response.body),
        GatewayResponse::Response(response) => match response.body {
            ProxyResponseBody::Bytes(bytes) => (response.status, response.headers, bytes),
            ProxyResponseBody::Empty => (response.status, response.headers, Bytes::new()),
        },
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    Ok(response)
}

/// Forwards requests to MinIO.
#[derive(Clone)]
struct Backend(reqwest::Client);

impl Backend {
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<RawResponse, ProxyError> {
        let failed = |error: reqwest::Error| ProxyError::BackendError(error.to_string());
        let request = self.0.request(method, url).headers(headers).body(body);
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(RawResponse { status, headers, body: response.bytes().await.map_err(failed)? })
    }
}

impl ProxyBackend for Backend {
    type ResponseBody = Bytes;
    type Body = Bytes;

    async fn forward(
        &self,
        request: ForwardRequest,
        body: Bytes,
    ) -> Result<ForwardResponse<Bytes>, ProxyError> {
        let ForwardRequest { method, url, headers, .. } = request;
        let RawResponse { status, headers, body } =
            self.send(method, url.as_str(), headers, body).await?;
        let length = headers.get("content-length").and_then(|length| length.to_str().ok());
        let content_length = length.and_then(|length| length.parse().ok());
        Ok(ForwardResponse { status, headers, body, content_length })
    }

    fn create_paginated_store(
        &self,
        config: &BucketConfig,
    ) -> Result<Box<dyn PaginatedListStore>, ProxyError> {
        create_builder(config)?.build()
    }

    fn create_signer(&self, config: &BucketConfig) -> Result<Arc<dyn Signer>, ProxyError> {
        build_signer(config)
    }

    async fn send_raw(
        &self,
        method: Method,
        url: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<RawResponse, ProxyError> {
        self.send(method, &url, headers, body).await
    }
}

/// A registry with one product, which anonymous requests may not read.
#[derive(Clone)]
struct SingleProduct(Arc<BucketConfig>);

impl BucketRegistry for SingleProduct {
    async fn get_bucket(
        &self,
        name: &str,
        identity: &ResolvedIdentity,
        _: &S3Operation,
    ) -> Result<ResolvedBucket, ProxyError> {
        match identity {
            _ if name != self.0.name => Err(ProxyError::BucketNotFound(name.to_owned())),
            ResolvedIdentity::Anonymous => Err(ProxyError::AccessDenied),
            ResolvedIdentity::Authenticated(_) => {
                let config = BucketConfig::clone(&self.0);
                Ok(ResolvedBucket { config, list_rewrite: None, display_name: None })
            }
        }
    }

    async fn list_buckets(&self, _: &ResolvedIdentity) -> Result<Vec<BucketEntry>, ProxyError> {
        Ok(Vec::new())
    }
}

/// A registry without long-term credentials.
#[derive(Clone)]
struct NoStoredCredentials;

impl CredentialRegistry for NoStoredCredentials {
    async fn get_credential(&self, _: &str) -> Result<Option<StoredCredential>, ProxyError> {
        Ok(None)
    }

    async fn get_role(&self, _: &str) -> Result<Option<RoleConfig>, ProxyError> {
        Ok(None)
    }
}

/// Accepts the session token of `CREDENTIALS`.
struct SessionTokens;

impl TemporaryCredentialResolver for SessionTokens {
    fn resolve(&self, token: &str) -> Result<Option<TemporaryCredentials>, ProxyError> {
        let (key, secret, known) = CREDENTIALS;
        Ok((token == known).then(|| TemporaryCredentials {
            access_key_id: key.to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: known.to_owned(),
            expiration: Utc::now() + chrono::TimeDelta::hours(1),
            allowed_scopes: Vec::new(),
            assumed_role_id: "role".to_owned(),
            source_identity: "somebody".to_owned(),
        }))
    }
}
