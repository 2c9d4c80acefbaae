//! The services under load: one GET to one of them, judged.

use std::time::Duration;

use anyhow::{Context, Result};
use api::client::{AccessToken, ClientTls, base_url};
use model::Algorithm;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time;

use crate::outcome::{Failure, FailureKind};
use crate::plan::Request;
use crate::scenario::RequestSpec;

/// A right answer takes some 150 bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Without TLS: the request's own timeout bounds the handshake, which a front holds while its coordinator restarts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The targets of a run; requests go to them in turn.
#[derive(Clone)]
pub(crate) struct Targets {
    client: Client,
    urls: Vec<Url>,
    algorithm: Algorithm,
}

/// The part of an answer that is checked. A worker asked directly may leave out the range.
#[derive(Deserialize)]
struct Answer {
    a: Option<u64>,
    b: Option<u64>,
    sum: String,
}

impl Targets {
    pub(crate) fn new(urls: Vec<Url>, request: &RequestSpec, token: Option<&AccessToken>) -> Result<Self> {
        let headers = token.map(|token| (AUTHORIZATION, token.header())).into_iter().collect();
        let is_https = urls.iter().any(|url| url.scheme() == "https");
        let builder = ClientTls::from_env()?.apply(Client::builder(), is_https)?;
        let builder = if is_https { builder } else { builder.connect_timeout(CONNECT_TIMEOUT) };
        let client = builder
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(request.timeout())
            .tcp_nodelay(true)
            .default_headers(headers)
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { client, urls, algorithm: request.algorithm })
    }

    /// Fails unless every target accepts a TCP connection, and with `https` one whose certificate is trusted.
    pub(crate) async fn reach(&self) -> Result<()> {
        for url in &self.urls {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let port = url.port_or_known_default().unwrap_or(80);
            time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .with_context(|| format!("connect to {url}"))?;
            if url.scheme() == "https" {
                let asked = self.client.head(url.clone()).timeout(CONNECT_TIMEOUT).send().await;
                asked.with_context(|| format!("connect to {url}"))?;
            }
        }
        Ok(())
    }

    /// Sends the request numbered `turn` and judges its answer.
    pub(crate) async fn ask(&self, turn: usize, request: &Request) -> Result<(), Failure> {
        let mut url = self.urls[turn % self.urls.len()].clone();
        let algorithm = match self.algorithm {
            Algorithm::Auto => String::new(),
            asked @ (Algorithm::Sieve | Algorithm::Combinatorial) => format!("&algorithm={asked}"),
        };
        url.set_query(Some(&format!("a={}&b={}{algorithm}", request.a, request.b)));
        let response = self.client.get(url).send().await.map_err(transport_failure)?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(Failure { kind: FailureKind::HttpStatus(status.as_u16()), detail: status.to_string() });
        }
        judge(request, &read_body(response).await?)
    }
}

/// The token of `DIVVY_TOKEN`, where that is set and not empty.
pub(crate) fn token_from_environment() -> Result<Option<AccessToken>> {
    let Some(token) = std::env::var_os("DIVVY_TOKEN").filter(|token| !token.is_empty()) else { return Ok(None) };
    let token = token.to_str().context("DIVVY_TOKEN is not text")?;
    token.parse().map(Some).context("DIVVY_TOKEN is not valid")
}

/// Parses `--url`, to which the path of the service is added.
pub(crate) fn parse_url(text: &str) -> Result<Url> {
    let mut url = base_url(text)?;
    url.path_segments_mut().ok().context("it has no path")?.pop_if_empty().push("sum-of-primes");
    Ok(url)
}

fn transport_failure(error: reqwest::Error) -> Failure {
    let kind = if error.is_connect() {
        FailureKind::Connect
    } else if error.is_timeout() {
        FailureKind::Timeout
    } else {
        FailureKind::Broken
    };
    Failure { kind, detail: format!("{:#}", anyhow::Error::from(error.without_url())) }
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_failure)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            let detail = format!("more than {BODY_BYTES_MAX} bytes");
            return Err(Failure { kind: FailureKind::Malformed, detail });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn judge(request: &Request, body: &[u8]) -> Result<(), Failure> {
    let malformed = |detail| Failure { kind: FailureKind::Malformed, detail };
    let answer: Answer = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let plain = !answer.sum.is_empty() && answer.sum.bytes().all(|c| c.is_ascii_digit());
    let sum: u128 =
        answer.sum.parse().ok().filter(|_| plain).ok_or_else(|| malformed("sum is no decimal number".to_owned()))?;
    let Request { a, b, sum: expected } = *request;
    let same_range = answer.a.is_none_or(|got| got == a) && answer.b.is_none_or(|got| got == b);
    if same_range && sum == expected {
        return Ok(());
    }
    let range = if same_range { "" } else { " for another range" };
    let detail = format!("a={a}&b={b}: {sum}{range}, the right sum is {expected}");
    Err(Failure { kind: FailureKind::WrongAnswer, detail })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const REQUEST: Request = Request { a: 2, b: 10, sum: 17 };

    fn kind(body: &str) -> Option<FailureKind> {
        judge(&REQUEST, body.as_bytes()).err().map(|failure| failure.kind)
    }

    /// A front holds a handshake while its coordinator restarts.
    #[tokio::test]
    async fn handshake_of_tls_may_take_as_long_as_an_answer() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("https://{}", silent.local_addr().expect("an address"));
        let request = RequestSpec {
            r_max: 0,
            a_step: 0,
            b_offset: 10,
            b_step: 0,
            algorithm: Algorithm::Auto,
            timeout_ms: 2_500,
            outstanding_max: 1,
        };
        assert!(request.timeout() > CONNECT_TIMEOUT);
        let targets = Targets::new(vec![parse_url(&url).expect("a URL")], &request, None).expect("targets");
        let failure = targets.ask(0, &REQUEST).await.expect_err("nothing answers");
        assert_eq!(failure.kind, FailureKind::Timeout, "{}", failure.detail);
    }

    #[test]
    fn only_the_right_sum_of_the_right_range_is_right() {
        assert_eq!(kind(r#"{"a":2,"b":10,"sum":"17","tasks":1,"elapsed_ms":0}"#), None);
        assert_eq!(kind(r#"{"sum":"17"}"#), None);
        assert_eq!(kind(r#"{"sum":"18"}"#), Some(FailureKind::WrongAnswer));
        assert_eq!(kind(r#"{"a":3,"b":10,"sum":"17"}"#), Some(FailureKind::WrongAnswer));
    }

    #[test]
    fn anything_but_the_promised_object_is_malformed() {
        for body in ["", "17", r#"{"sum":17}"#, r#"{"sum":"+17"}"#, r#"{"sum":""}"#, r#"{"sum":"17""#] {
            assert_eq!(kind(body), Some(FailureKind::Malformed), "{body}");
        }
    }

    #[test]
    fn the_service_path_is_added_to_a_url() {
        let asked = |text| parse_url(text).map(|url| url.to_string()).ok();
        assert_eq!(asked("http://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080/sum-of-primes"));
        assert_eq!(asked("https://host").as_deref(), Some("https://host/sum-of-primes"));
        assert_eq!(asked("http://host/grid/").as_deref(), Some("http://host/grid/sum-of-primes"));
        for refused in ["https://", "host:8080", "http://host/?a=1", "file:///tmp", "http://me:hush@host"] {
            assert_eq!(asked(refused), None, "{refused}");
        }
    }
}
