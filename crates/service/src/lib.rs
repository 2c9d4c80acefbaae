//! The HTTP parts that the coordinator and the worker share: errors as problem details, bounded requests, the worker token,
//! metrics, health, logs and signals. This crate does not depend on the task of either.

mod accept;
pub mod access;
mod answer;
mod auth;
mod body;
mod budget;
mod command_line;
mod compression;
mod config;
mod connection;
mod credential;
mod doors;
mod encoding;
mod ended;
mod error;
mod fields;
mod guard;
mod head;
mod health;
pub mod kubernetes;
mod metrics;
mod process;
mod process_metrics;
mod query;
mod relay;
mod reload;
mod routes;
mod server;
mod stream;
mod telemetry;
mod tls;
pub mod trace;
pub mod web_socket;

pub use accept::prefers_to_json;
pub use access::{Access, Caller, Right, Rights, TOKEN_COOKIE, until_revoked};
pub use auth::{InvalidToken, WorkerToken};
pub use body::{
    Body, MAX_BODY_BYTES, body_error, parse_form, parse_json, parse_json_leniently, read_body, read_json,
    read_json_leniently, read_json_or_default, with_body, with_body_counted,
};
pub use budget::{BodyBudget, Reservation};
pub use command_line::{CommandLine, Variable, WRONG_USAGE, variables_of};
pub use compression::Compressed;
pub use config::{flag, from_env, is_variable_of_a_program, warn_about_unknown_variables};
pub use connection::{Connection, Upstream, mind_peer, mind_service, mind_unanswered, when_answer_is_lost};
pub use credential::Credential;
pub use doors::{DoorSettings, Doors};
pub use ended::ended_by_itself;
pub use error::{ApiError, mark_not_leading};
pub use fields::fields_of;
pub use guard::AllowedHosts;
pub use health::Health;
pub use metrics::Metrics;
pub use process::{build_until, exit_code, hang_up, raise_open_files_limit, shutdown_signal};
pub use query::{Query, range_from_query};
pub use relay::{AnsweringProcess, Passed, Relay, payload_of};
pub use routes::{BodySize, Refusal, Route};
pub use server::{Limits, Listener, resource, serve};
pub use telemetry::{DEFAULT_LOG, init_logs};
pub use tls::TlsFiles;
