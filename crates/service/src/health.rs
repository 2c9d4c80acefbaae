//! Liveness and readiness.

use std::sync::{Arc, Mutex, PoisonError};

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use tokio::sync::watch;

use crate::{ApiError, resource};

/// Whether the service takes new work. Shared by its listeners.
#[derive(Clone, Debug, Default)]
pub struct Health {
    draining: Arc<watch::Sender<bool>>,
    obstacle: Arc<Mutex<Option<&'static str>>>,
}

impl Health {
    /// Turns readiness off for good.
    pub fn start_draining(&self) {
        self.draining.send_replace(true);
    }

    /// Turns readiness off while there is an obstacle. The obstacle's text completes "this service is not ready: ".
    pub fn set_obstacle(&self, obstacle: Option<&'static str>) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }

    fn obstacle(&self) -> Option<&'static str> {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the service is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Resolves when the service is about to stop: unbounded answers have to end.
    pub async fn drained(&self) {
        // The sender lives as long as this value, so there is no error.
        let _ = self.draining.subscribe().wait_for(|is_draining| *is_draining).await;
    }

    /// Adds `/livez` and `/readyz`.
    pub fn configure(&self, config: &mut ServiceConfig) {
        config
            .app_data(Data::new(self.clone()))
            .service(resource("/livez", "GET").get(livez))
            .service(resource("/readyz", "GET").get(readyz));
    }
}

async fn livez() -> impl Responder {
    HttpResponse::Ok().body("ok\n")
}

async fn readyz(health: Data<Health>) -> Result<impl Responder, ApiError> {
    if health.is_draining() {
        return Err(ApiError::Unavailable("this service is stopping".to_owned()));
    }
    match health.obstacle() {
        Some(obstacle) => Err(ApiError::Unavailable(format!("this service is not ready: {obstacle}"))),
        None => Ok(HttpResponse::Ok().body("ok\n")),
    }
}
