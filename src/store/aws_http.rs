//! The HTTP client of the AWS tools' code, which asks for credentials: ours, so that the same authorities are
//! trusted, nothing for this machine goes through a proxy, and no answer is longer than one can be.

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

/// Most bytes of an answer with credentials.
const MOST: usize = 1 << 20;

/// Asks services of AWS, and of this machine, for credentials.
#[derive(Clone, Debug)]
pub(super) struct AwsHttp {
    /// For services elsewhere.
    pub outside: Client,
    /// For this machine and the addresses of its metadata, which no proxy knows.
    pub direct: Client,
}

impl HttpClient for AwsHttp {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = [settings.connect_timeout(), settings.read_timeout()];
        let most = timeouts.into_iter().flatten().reduce(|a, b| a + b);
        SharedHttpConnector::new(WithTimeout { clients: self.clone(), most })
    }
}

/// The same, for requests that may take so long.
#[derive(Debug)]
struct WithTimeout {
    clients: AwsHttp,
    most: Option<Duration>,
}

impl HttpConnector for WithTimeout {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (clients, most) = (self.clients.clone(), self.most);
        HttpConnectorFuture::new(async move {
            let sent = send(&clients, request);
            match most {
                None => sent.await,
                Some(most) => tokio::time::timeout(most, sent)
                    .await
                    .unwrap_or_else(|late| Err(ConnectorError::timeout(late.into()))),
            }
        })
    }
}

async fn send(clients: &AwsHttp, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().map(<[u8]>::to_vec).unwrap_or_default();
    let url = Url::parse(&head.uri.to_string()).map_err(|e| ConnectorError::user(e.into()))?;
    let client = if is_near(&url) { &clients.direct } else { &clients.outside };
    let request = client.request(head.method, url).headers(head.headers).body(body);
    let failed = |error: reqwest::Error| {
        let is_late = error.is_timeout();
        let error = error.without_url().into();
        if is_late { ConnectorError::timeout(error) } else { ConnectorError::io(error) }
    };
    let answer = request.send().await.map_err(failed)?;
    let (head, rest) = http::Response::<reqwest::Body>::from(answer).into_parts();
    let mut data = Vec::new();
    let mut stream = http_body_util::BodyDataStream::new(rest);
    while let Some(more) = stream.try_next().await.map_err(failed)? {
        if data.len() + more.len() > MOST {
            let detail =
                format!("an answer of more than {MOST} bytes where credentials are expected");
            return Err(ConnectorError::other(detail.into(), None));
        }
        data.extend_from_slice(&more);
    }
    let answer = http::Response::from_parts(head, SdkBody::from(data));
    HttpResponse::try_from(answer).map_err(|e| ConnectorError::other(e.into(), None))
}

/// Whether a service is on this machine, or of it: its metadata have addresses of the link.
fn is_near(url: &Url) -> bool {
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
    fn metadata_of_a_machine_is_near() {
        for (url, near) in [
            ("http://169.254.169.254/latest", true),
            ("http://169.254.170.2/v2", true),
            ("http://[fd00:ec2::254]/", true),
            ("http://localhost:9/", true),
            ("https://sts.us-east-1.amazonaws.com", false),
        ] {
            assert_eq!(is_near(&Url::parse(url).unwrap()), near, "{url}");
        }
    }
}
