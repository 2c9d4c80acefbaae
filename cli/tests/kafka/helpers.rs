//! The broker of the coordinator's tests, and their waits for a process or a fact.

#[path = "../../../coordinator/tests/kafka/helpers/broker.rs"]
#[expect(dead_code, reason = "what the coordinator's tests do with a broker")]
mod broker;
#[path = "../../../coordinator/tests/kafka/helpers/java.rs"]
mod java;
#[path = "../../../coordinator/tests/kafka/helpers/kcat.rs"]
#[expect(dead_code, reason = "what the coordinator's tests read")]
mod kcat;
#[path = "../../../coordinator/tests/kafka/helpers/process.rs"]
mod process;

pub(crate) use broker::Broker;
pub(crate) use process::{eventually, spawn};
