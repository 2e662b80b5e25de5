//! Source Cooperative's own proxy, before a MinIO: the crate that the service is made of, with its mapping of
//! `/account/product/key`, temporary credentials, and nothing of ours.

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
use super::proxy::on_its_own_thread;

/// Key, secret and session token of one who may write.
const CREDENTIALS: (&str, &str, &str) = ("coop-key", "coop-secret", "coop-session-token");
const SEPARATOR: &str = ":";

/// What a client needs in its environment.
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

/// The endpoint of a proxy whose account is the bucket, and whose one product lies below its name in it.
pub fn before(minio: &Minio, product: &str) -> String {
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
    let products = MappedRegistry::new(Products(Arc::new(config)), mapping.clone());
    let backend = Backend(reqwest::Client::builder().no_proxy().build().unwrap());
    let gateway = ProxyGateway::new(backend, products, Nobody, None);
    let gateway = Arc::new(gateway.with_credential_resolver(Tokens));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    on_its_own_thread(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (gateway, mapping) = (gateway.clone(), mapping.clone());
            let answer = move |request| answer(request, gateway.clone(), mapping.clone());
            tokio::spawn(async move {
                let serving = Builder::new(TokioExecutor::new());
                let _ = serving.serve_connection(TokioIo::new(socket), service_fn(answer)).await;
            });
        }
    });
    endpoint
}

type Gateway = ProxyGateway<Backend, MappedRegistry<Products>, Nobody>;

async fn answer(
    request: Request<Incoming>,
    gateway: Arc<Gateway>,
    mapping: PathMapping,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The gateway takes names as they are, and signatures as they were sent.
    let sent = head.uri.path();
    let name = percent_decode_str(sent).decode_utf8_lossy();
    let mapped = mapping.rewrite_request(&name, head.uri.query());
    let (path, query) = (&*mapped.path, mapped.query.as_deref());
    let asked = RequestInfo::new(&head.method, path, query, &head.headers, None)
        .with_signing_path(sent)
        .with_signing_query(mapped.signing_query.as_deref());
    let collected = async |body: Bytes| Ok::<_, Infallible>(body);
    let (status, headers, body) = match gateway.handle_request(&asked, body, collected).await {
        GatewayResponse::Forward(answer) => (answer.status, answer.headers, answer.body),
        GatewayResponse::Response(answer) => match answer.body {
            ProxyResponseBody::Bytes(bytes) => (answer.status, answer.headers, bytes),
            ProxyResponseBody::Empty => (answer.status, answer.headers, Bytes::new()),
        },
    };
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    *answer.headers_mut() = headers;
    Ok(answer)
}

#[derive(Clone)]
struct Backend(reqwest::Client);

impl Backend {
    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<RawResponse, ProxyError> {
        let failed = |error: reqwest::Error| ProxyError::BackendError(error.to_string());
        let request = self.0.request(method, url).headers(headers).body(body);
        let answer = request.send().await.map_err(failed)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(RawResponse { status, headers, body: answer.bytes().await.map_err(failed)? })
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
            self.ask(method, url.as_str(), headers, body).await?;
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
        self.ask(method, &url, headers, body).await
    }
}

/// The one product.
#[derive(Clone)]
struct Products(Arc<BucketConfig>);

impl BucketRegistry for Products {
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

/// Nobody has credentials that last.
#[derive(Clone)]
struct Nobody;

impl CredentialRegistry for Nobody {
    async fn get_credential(&self, _: &str) -> Result<Option<StoredCredential>, ProxyError> {
        Ok(None)
    }

    async fn get_role(&self, _: &str) -> Result<Option<RoleConfig>, ProxyError> {
        Ok(None)
    }
}

struct Tokens;

impl TemporaryCredentialResolver for Tokens {
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
