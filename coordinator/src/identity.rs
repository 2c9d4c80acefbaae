//! Whether a request at the internal port comes from a worker: by the shared token, or by the token of a service account
//! that the API server of Kubernetes vouches for.

mod cache;
mod claims;
mod refusals;
mod reviews;

use std::time::Instant;

use actix_web::HttpRequest;
use service::{ApiError, WorkerToken};
use tracing::warn;

use crate::config::Config;
use crate::metrics::CoordinatorMetrics;
use refusals::Refusals;
use reviews::Reviews;

/// Checks the credentials of workers at the internal port: the shared token, or a token of a service account.
#[derive(Debug)]
pub(crate) struct WorkerIdentity {
    shared: WorkerToken,
    reviews: Option<Reviews>,
    refusals: Refusals,
}

impl WorkerIdentity {
    /// # Errors
    /// Service accounts are named, and this process cannot ask the API server.
    pub(crate) fn new(config: &Config, metrics: &CoordinatorMetrics) -> anyhow::Result<Self> {
        let reviews =
            if config.worker_service_accounts.is_empty() { None } else { Some(Reviews::new(config, metrics.clone())?) };
        Ok(Self { shared: config.worker_token.clone(), reviews, refusals: Refusals::default() })
    }

    /// Admits a request that shows the shared token or the token of a named service account, and every request where neither is
    /// configured. Logs a refusal once a minute for each address.
    ///
    /// # Errors
    /// The request shows no such token, or the API server cannot be asked about it.
    pub(crate) async fn demand(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let demanded = self.check(request).await;
        if let Err(error @ (ApiError::Unauthorized | ApiError::AccountRefused(_))) = &demanded
            && let Some(peer) = request.peer_addr()
            && self.refusals.is_news(peer.ip(), Instant::now())
        {
            warn!(address = %peer.ip(), path = request.path(), %error, "a worker was refused");
        }
        demanded
    }

    async fn check(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let Some(reviews) = &self.reviews else { return self.shared.demand(request) };
        match WorkerToken::shown(request) {
            Some(token) if self.shared.is(token) => Ok(()),
            Some(token) => reviews.demand(token).await,
            None => Err(ApiError::Unauthorized),
        }
    }
}
