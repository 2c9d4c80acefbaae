//! The API server of the Kubernetes cluster that a process runs in, asked as the process's service account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use api::client::{AnswerError, ClientTls, http_client_with, read_bounded_json};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::credential::read_token;

/// Directory in which Kubernetes puts the token and the authority of a pod's service account.
pub const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bound on the time of an answer; a loaded API server answers within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read: a pod with its status.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A client of the API server.
#[derive(Debug)]
pub struct ApiServer {
    client: Client,
    url: String,
    token_file: PathBuf,
}

/// The API server's verdict on a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenStatus {
    /// Whether the token is valid, for at least one of the audiences.
    pub authenticated: bool,
    /// Owner of the token.
    pub user: User,
    /// The requested audiences that the token is for; empty if the API server does not know audiences.
    pub audiences: Vec<String>,
    /// The reason why the token is not valid.
    pub error: String,
}

/// The bearer of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME` of a service account.
    pub username: String,
}

#[derive(Deserialize)]
struct TokenReview {
    status: TokenStatus,
}

/// The API server did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// The process has no token of its own.
    #[error("{0:#}")]
    Token(anyhow::Error),
    /// The API server cannot be reached, or does not answer in time.
    #[error("the API server does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer cannot be read.
    #[error("the answer of the API server cannot be read")]
    Answer(#[from] AnswerError),
    /// The API server refuses the request.
    #[error("the API server answered {status}{message}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// A colon and the server's message, or an empty text.
        message: String,
    },
}

impl ApiServer {
    /// The API server that `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` name, which kubelet sets in every pod.
    /// `account_dir` has the files `token`, which is read for each request, and `ca.crt`, the API server's authority.
    ///
    /// # Errors
    /// The process does not run in a pod, or the files cannot be read.
    pub fn of_cluster(account_dir: &Path) -> anyhow::Result<Self> {
        let variable = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.with_context(|| format!("{name} is not set: this needs a pod of Kubernetes"))
        };
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let tls = ClientTls { ca_file: Some(account_dir.join("ca.crt")), ..ClientTls::default() };
        // Only the API server's own authority is trusted, not those of the system.
        let files =
            || format!("use the service account's files in {} (DIVVY_KUBERNETES_ACCOUNT_DIR)", account_dir.display());
        let client = http_client_with(CONNECT_TIMEOUT, &tls, false).with_context(files)?;
        let server = Self { client, url: format!("https://{host}:{port}"), token_file: account_dir.join("token") };
        read_token(&server.token_file).with_context(files)?;
        Ok(server)
    }

    /// Asks whether a token is valid for an audience (TokenReview of authentication.k8s.io/v1).
    ///
    /// # Errors
    /// The API server cannot be asked, or refuses to answer this process.
    pub async fn review(&self, token: &str, audience: &str) -> Result<TokenStatus, ApiServerError> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let request = self.client.post(format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.url));
        let TokenReview { status } = self.ask(request.json(&review)).await?;
        Ok(status)
    }

    /// Sets an annotation of a pod, and leaves the rest of the pod unchanged.
    ///
    /// # Errors
    /// A name cannot be that of an object, the API server cannot be asked, or it refuses.
    pub async fn annotate_pod(&self, pod: &PodName, annotation: &str, value: &str) -> Result<(), ApiServerError> {
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        let PodName { namespace, name } = pod;
        let request = self.client.patch(format!("{}/api/v1/namespaces/{namespace}/pods/{name}", self.url));
        let request = request.header("content-type", "application/merge-patch+json").body(patch.to_string());
        self.ask::<Value>(request).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiServerError> {
        // A projected token is renewed in its file every hour or so.
        let token = read_token(&self.token_file).map_err(ApiServerError::Token)?;
        let sent = token.sign(request).timeout(ANSWER_TIMEOUT).send().await;
        let response = sent.map_err(ApiServerError::Unreachable)?;
        if response.status().is_success() {
            return Ok(read_bounded_json(response, MAX_ANSWER_BYTES).await?);
        }
        Err(refusal(response).await)
    }
}

async fn refusal(response: Response) -> ApiServerError {
    let status = response.status();
    let answer = read_bounded_json::<Value>(response, MAX_ANSWER_BYTES).await.unwrap_or_default();
    let message = answer["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
    ApiServerError::Refused { status, message }
}

/// A pod, as `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PodName {
    namespace: String,
    name: String,
}

impl TryFrom<String> for PodName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let (namespace, name) = text.split_once('/').context("it must be NAMESPACE/NAME")?;
        check_name("the namespace", namespace)?;
        check_name("the name", name)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Checks the name of an object (RFC 1123), which needs no encoding in paths and lists.
pub(crate) fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    ensure!(
        (1..=253).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '.']),
        "{what} must be the name of a Kubernetes object, but is {name:?}"
    );
    Ok(())
}

/// Service accounts, as `NAMESPACE:NAME` with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceAccounts(Vec<String>);

impl ServiceAccounts {
    /// Whether no account is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the accounts has this user name.
    #[must_use]
    pub fn include(&self, username: &str) -> bool {
        self.0.iter().any(|account| account == username)
    }
}

impl TryFrom<String> for ServiceAccounts {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let accounts = text.split(',').map(str::trim).filter(|account| !account.is_empty()).map(|account| {
            let (namespace, name) = account.split_once(':').context("each must be NAMESPACE:NAME")?;
            check_name("the namespace", namespace)?;
            check_name("the name", name)?;
            Ok(format!("system:serviceaccount:{namespace}:{name}"))
        });
        Ok(Self(accounts.collect::<anyhow::Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_change_a_path_or_a_list_are_refused() {
        assert!(PodName::try_from("divvy/divvy-worker-6d5f-x2x".to_owned()).is_ok());
        for wrong in ["", "divvy", "/x", "divvy/", "divvy/../x", "divvy/a/b", "divvy/x?y", "Divvy/x", "divvy/x y"] {
            assert!(PodName::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        for wrong in ["divvy", "divvy:", ":worker", "divvy:a:b", "a/b:c", "divvy:worker,x"] {
            assert!(ServiceAccounts::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_are_known_by_the_user_names_that_kubernetes_gives_them() {
        let accounts = ServiceAccounts::try_from(" divvy:divvy-worker, other:worker,".to_owned()).expect("accounts");
        assert!(accounts.include("system:serviceaccount:divvy:divvy-worker"));
        assert!(accounts.include("system:serviceaccount:other:worker"));
        assert!(!accounts.include("system:serviceaccount:divvy:default") && !accounts.include("divvy:divvy-worker"));
        assert!(ServiceAccounts::try_from(String::new()).expect("none").is_empty());
    }
}
