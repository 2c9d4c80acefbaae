//! What the coordinator and the worker share as HTTP services: errors as problem details, bounded requests, the worker
//! token, metrics, health, logs and signals. Nothing here knows what either of them does.

mod auth;
mod body;
mod config;
mod connection;
mod error;
mod fields;
mod health;
mod metrics;
mod process;
mod program;
mod query;
mod server;
mod telemetry;

pub use auth::{InvalidToken, WorkerToken};
pub use body::{MAX_BODY_BYTES, parse_json, read_body, read_json, with_body};
pub use config::{from_env, warn_about_unknown_variables};
pub use connection::Connection;
pub use error::ApiError;
pub use fields::fields_of;
pub use health::Health;
pub use metrics::Metrics;
pub use process::{exit_code, raise_open_files_limit, shutdown_signal};
pub use program::{Program, Variable, variables_of};
pub use query::{query_from, range_from_query};
pub use server::{Listener, resource, serve};
pub use telemetry::{DEFAULT_LOG, init_logs};
