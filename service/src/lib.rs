//! What the coordinator and the worker share as HTTP services: errors as problem details, bounded requests, the worker
//! token, metrics, health, logs and signals. Nothing here knows what either of them does.

mod auth;
mod body;
mod client;
mod config;
mod connection;
mod error;
mod health;
mod metrics;
mod query;
mod server;
mod signals;
mod telemetry;

pub use auth::WorkerToken;
pub use body::read_json;
pub use client::{http_client, read_bounded_json};
pub use config::from_env;
pub use connection::Connection;
pub use error::ApiError;
pub use health::Health;
pub use metrics::Metrics;
pub use query::{query_from, range_from_query};
pub use server::{Listener, resource, serve};
pub use signals::shutdown_signal;
pub use telemetry::{DEFAULT_LOG, init_logs};
