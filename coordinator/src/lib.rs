//! The coordinator: takes questions over HTTP, divides them over the workers that announce themselves, and answers.
//! See [`startup::Coordinator`].

mod advertised;
mod clock;
mod compositions;
pub mod config;
mod driver;
mod election;
mod event_hub;
mod fingerprint;
mod http;
mod identity;
mod job_locks;
mod job_view;
mod jobs;
mod kafka;
mod leadership;
mod lease_log;
mod lease_sender;
mod members;
mod metrics;
pub mod migrate;
mod outcomes;
mod programs;
mod pull_workers;
mod relay;
mod role;
mod simulated_workers;
pub mod startup;
mod submission;
mod submitted;
pub mod succession;
mod supervisor;
mod task_logs;
mod term;
mod workers;
