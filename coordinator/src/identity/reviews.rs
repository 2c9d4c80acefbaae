//! Asks the API server about tokens of service accounts (TokenReview), once for all requests that show the same one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::Context;
use service::ApiError;
use service::kubernetes::{ApiServer, ApiServerError, ServiceAccounts, TokenStatus};
use sha2::{Digest, Sha256};
use tracing::{error, info};

use super::cache::{Cache, Key, Look, Pending, Verdict};
use super::claims::Claims;
use crate::config::Config;
use crate::metrics::{CoordinatorMetrics, Reviewed};

#[derive(Debug)]
pub(super) struct Reviews(Arc<Reviewer>);

#[derive(Debug)]
struct Reviewer {
    server: ApiServer,
    accounts: ServiceAccounts,
    audience: String,
    cache: Mutex<Cache>,
    metrics: CoordinatorMetrics,
    /// Whether the API server could not be asked last time: the log tells a failure once.
    is_failing: AtomicBool,
}

impl Reviews {
    /// # Errors
    /// This process cannot ask the API server.
    pub(super) fn new(config: &Config, metrics: CoordinatorMetrics) -> anyhow::Result<Self> {
        let server = ApiServer::of_cluster(&config.kubernetes_account_dir);
        let server = server.context("prepare to ask about workers' tokens (DIVVY_WORKER_SERVICE_ACCOUNTS)")?;
        Ok(Self(Arc::new(Reviewer {
            server,
            accounts: config.worker_service_accounts.clone(),
            audience: config.worker_audience.clone(),
            cache: Mutex::new(Cache::new(config.worker_review_age())),
            metrics,
            is_failing: AtomicBool::new(false),
        })))
    }

    /// Admits the token of a named service account.
    pub(super) async fn demand(&self, token: &[u8]) -> Result<(), ApiError> {
        let token = std::str::from_utf8(token).map_err(|_| ApiError::Unauthorized)?;
        let claims = Claims::read(token).ok_or(ApiError::Unauthorized)?;
        match self.0.verdict(token, claims).await {
            Verdict::Accepted => Ok(()),
            Verdict::Refused(why) => Err(ApiError::AccountRefused(why.to_string())),
            Verdict::Unknown(why) => Err(ApiError::Unavailable(format!("the worker's token cannot be checked: {why}"))),
        }
    }
}

impl Reviewer {
    async fn verdict(self: &Arc<Self>, token: &str, claims: Claims) -> Verdict {
        if let Some(why) = self.obvious_refusal(&claims) {
            return Verdict::Refused(why.into());
        }
        let key: Key = Sha256::digest(token).into();
        let look = self.cache().look(key, Instant::now());
        match look {
            Look::Known(verdict) => verdict,
            Look::Aging(pending) => {
                if let Some(pending) = pending {
                    self.ask(pending, key, token, claims);
                }
                Verdict::Accepted
            }
            Look::Wait(pending, mut answer) => {
                if let Some(pending) = pending {
                    self.ask(pending, key, token, claims);
                }
                let answered = answer.wait_for(Option::is_some).await;
                let verdict = answered.ok().and_then(|verdict| verdict.clone());
                verdict.unwrap_or_else(|| Verdict::Unknown("the question was given up".into()))
            }
            Look::Full => Verdict::Unknown("too many tokens are being checked".into()),
        }
    }

    /// The reason why a token cannot be valid by its own claims.
    fn obvious_refusal(&self, claims: &Claims) -> Option<String> {
        if !claims.are_for(&self.audience) {
            return Some(format!("it is not for the audience {:?}", self.audience));
        }
        if !self.accounts.include(&claims.sub) {
            return Some("its service account is not one of DIVVY_WORKER_SERVICE_ACCOUNTS".to_owned());
        }
        claims.left(SystemTime::now()).is_some_and(|left| left.is_zero()).then(|| "it has expired".to_owned())
    }

    /// Asks in a task of its own: the answer is cached even if the worker does not wait, so that its next request finds it.
    fn ask(self: &Arc<Self>, pending: Pending, key: Key, token: &str, claims: Claims) {
        let (this, token) = (Arc::clone(self), token.to_owned());
        tokio::spawn(async move {
            let answer = this.server.review(&token, &this.audience).await;
            let verdict = this.judge(answer);
            let expires_at = claims.left(SystemTime::now()).map(|left| Instant::now() + left);
            this.cache().end(key, &verdict, expires_at, Instant::now());
            pending.send_replace(Some(verdict));
        });
    }

    fn judge(&self, answer: Result<TokenStatus, ApiServerError>) -> Verdict {
        let status = match answer {
            Ok(status) => status,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                self.metrics.reviewed(Reviewed::Failed);
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    error!(error, "workers' tokens cannot be checked");
                }
                return Verdict::Unknown(error.into());
            }
        };
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!("workers' tokens can be checked again");
        }
        match self.refusal(&status) {
            None => {
                self.metrics.reviewed(Reviewed::Accepted);
                Verdict::Accepted
            }
            Some(why) => {
                self.metrics.reviewed(Reviewed::Refused);
                Verdict::Refused(why.into())
            }
        }
    }

    fn refusal(&self, status: &TokenStatus) -> Option<String> {
        if !status.authenticated {
            let error = if status.error.is_empty() { "no reason is given" } else { &status.error };
            return Some(format!("the API server does not accept it: {error}"));
        }
        // An API server without support for audiences returns none: it has not checked the audience.
        if !status.audiences.contains(&self.audience) {
            return Some(format!("the API server does not confirm the audience {:?}", self.audience));
        }
        let is_named = self.accounts.include(&status.user.username);
        (!is_named).then(|| format!("it is of {:?}", status.user.username))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
