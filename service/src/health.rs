//! Liveness and readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, Responder};

use crate::{ApiError, resource};

/// Whether the service wants new work. Shared by its listeners.
#[derive(Clone, Debug, Default)]
pub struct Health {
    draining: Arc<AtomicBool>,
}

impl Health {
    /// Turns readiness off for good.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the service is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
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
    Ok(HttpResponse::Ok().body("ok\n"))
}
