//! The HTTP client with which the AWS SDK requests credentials.
//!
//! It replaces the client of the SDK: it trusts the same certificate authorities as the S3 client, does
//! not send requests for this machine through a proxy, and bounds the size of a response.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use futures::TryStreamExt;
use reqwest::Client;
use url::{Host, Url};

use super::location::is_loopback;

/// Largest accepted response with credentials, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

/// HTTP clients for the services that issue credentials.
#[derive(Clone, Debug)]
pub(super) struct AwsHttp {
    /// For services on other machines; uses the proxy of the environment.
    pub proxied: Client,
    /// For this machine and its instance metadata, which a proxy cannot reach.
    pub direct: Client,
}

impl HttpClient for AwsHttp {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = [settings.connect_timeout(), settings.read_timeout()];
        let limit = timeouts.into_iter().flatten().reduce(|a, b| a + b);
        SharedHttpConnector::new(WithTimeout { clients: self.clone(), limit })
    }
}

/// [`AwsHttp`] with a limit on the duration of a request.
#[derive(Debug)]
struct WithTimeout {
    clients: AwsHttp,
    /// `None` if a request may take any time.
    limit: Option<Duration>,
}

impl HttpConnector for WithTimeout {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (clients, limit) = (self.clients.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            let response = send(&clients, request);
            match limit {
                None => response.await,
                Some(limit) => tokio::time::timeout(limit, response)
                    .await
                    .unwrap_or_else(|elapsed| Err(ConnectorError::timeout(elapsed.into()))),
            }
        })
    }
}

/// Sends a request of the SDK and reads the whole response.
async fn send(clients: &AwsHttp, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().map(<[u8]>::to_vec).unwrap_or_default();
    let url = Url::parse(&head.uri.to_string()).map_err(|e| ConnectorError::user(e.into()))?;
    let client = if is_local(&url) { &clients.direct } else { &clients.proxied };
    let request = client.request(head.method, url).headers(head.headers).body(body);
    let failed = |error: reqwest::Error| {
        let is_timeout = error.is_timeout();
        let error = error.without_url().into();
        if is_timeout { ConnectorError::timeout(error) } else { ConnectorError::io(error) }
    };
    let response = request.send().await.map_err(failed)?;
    let (head, body) = http::Response::<reqwest::Body>::from(response).into_parts();
    let mut data = Vec::new();
    let mut stream = http_body_util::BodyDataStream::new(body);
    while let Some(chunk) = stream.try_next().await.map_err(failed)? {
        if data.len() + chunk.len() > MAX_RESPONSE {
            let detail =
                format!("the response with credentials is larger than {MAX_RESPONSE} bytes");
            return Err(ConnectorError::other(detail.into(), None));
        }
        data.extend_from_slice(&chunk);
    }
    let response = http::Response::from_parts(head, SdkBody::from(data));
    HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
}

/// Whether a URL is on this machine or is its instance metadata, which has a link-local address.
fn is_local(url: &Url) -> bool {
    is_loopback(url)
        || match url.host() {
            Some(Host::Ipv4(address)) => address.is_link_local(),
            Some(Host::Ipv6(address)) => {
                address.is_unicast_link_local() || address.is_unique_local()
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_metadata_is_local() {
        for (url, expected) in [
            ("http://169.254.169.254/latest", true),
            ("http://169.254.170.2/v2", true),
            ("http://[fd00:ec2::254]/", true),
            ("http://localhost:9/", true),
            ("https://sts.us-east-1.amazonaws.com", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
