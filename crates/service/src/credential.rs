//! The token that a worker sends to coordinators: the shared token, or that of a file, which is read again when it changes,
//! since Kubernetes renews the tokens of service accounts.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, ensure};
use tracing::{error, info};

use crate::WorkerToken;
use crate::reload::{Stamps, watch};

/// Longest token: it must fit into a header of a request.
const MAX_TOKEN_BYTES: u64 = 8 * 1024;

/// Signs the requests that a worker sends to coordinators. Clones share the file.
#[derive(Clone, Debug)]
pub struct Credential(Source);

#[derive(Clone, Debug)]
enum Source {
    Shared(WorkerToken),
    File(Arc<TokenFile>),
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    token: RwLock<WorkerToken>,
}

impl Credential {
    /// The shared token, which may be unset.
    #[must_use]
    pub fn shared(token: WorkerToken) -> Self {
        Self(Source::Shared(token))
    }

    /// The token of a file. If its new content is no token, the old token stays in use.
    ///
    /// # Errors
    /// The file cannot be read or has no token, or the thread that reads it again cannot be started.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let stamps = Stamps::of([path.to_owned()]);
        let token = RwLock::new(read_token(path)?);
        let file = Arc::new(TokenFile { path: path.to_owned(), token });
        watch(stamps, Arc::downgrade(&file), TokenFile::reload, TokenFile::complain)
            .context("start the thread that reads the token again")?;
        Ok(Self(Source::File(file)))
    }

    /// Adds the token, if there is one, to an outgoing request.
    pub fn sign(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.0 {
            Source::Shared(token) => token.sign(request),
            Source::File(file) => file.token.read().unwrap_or_else(PoisonError::into_inner).sign(request),
        }
    }
}

impl TokenFile {
    fn reload(&self) -> anyhow::Result<()> {
        let token = read_token(&self.path)?;
        info!(file = %self.path.display(), "the token was read again");
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    fn complain(&self, error: &str) {
        let file = self.path.display();
        error!(%file, error, "the file has no token: the one read before stays in use");
    }
}

/// The token of a file, without the white space around it and the byte order mark that some editors put first.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<WorkerToken> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("open {shown}"))?;
    file.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).with_context(|| format!("read {shown}"))?;
    ensure!(text.len() as u64 <= MAX_TOKEN_BYTES, "{shown} is longer than {MAX_TOKEN_BYTES} bytes");
    let token = WorkerToken::try_from(text.trim_start_matches('\u{feff}').trim().to_owned())
        .with_context(|| format!("read {shown}"))?;
    ensure!(token.is_set(), "{shown} is empty");
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    fn header(credential: &Credential) -> Option<String> {
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls()).build().expect("a client");
        let request = credential.sign(client.get("http://localhost/")).build().expect("a request");
        request.headers().get("authorization").map(|value| value.to_str().expect("ASCII").to_owned())
    }

    fn tls() -> rustls::ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(api::client::tls::provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    }

    #[test]
    fn a_renewed_token_is_shown_and_a_broken_file_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        fs::write(&path, "first\n").expect("written");
        let credential = Credential::from_file(&path).expect("a token");
        let shows = |token: &str| {
            let (expected, deadline) = (Some(format!("Bearer {token}")), Instant::now() + Duration::from_secs(60));
            while header(&credential) != expected {
                assert!(Instant::now() < deadline, "{token} is not shown");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        shows("first");
        fs::write(&path, "").expect("written");
        fs::write(&path, "two words").expect("written");
        shows("first");
        fs::write(&path, "\u{feff}second\r\n").expect("written");
        shows("second");
    }

    #[test]
    fn a_file_without_a_token_stops_the_start_and_its_content_is_not_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let too_long = "x".repeat(8 * 1024 + 1);
        for (text, cause) in [("", "is empty"), ("hush hush", "visible ASCII"), (&*too_long, "longer than 8192")] {
            fs::write(&path, text).expect("written");
            let error = format!("{:#}", Credential::from_file(&path).expect_err(cause));
            assert!(error.contains(cause) && !error.contains("hush"), "{error}");
        }
        assert!(Credential::from_file(&directory.path().join("nowhere")).is_err());
    }
}
