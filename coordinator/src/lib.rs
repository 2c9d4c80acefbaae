//! The coordinator: takes questions over HTTP, divides them over the workers that announce themselves, and answers.
//! See [`startup::Coordinator`].

mod clock;
mod compositions;
pub mod config;
mod driver;
mod event_hub;
mod fingerprint;
mod http;
mod job_locks;
mod job_view;
mod jobs;
mod lease_log;
mod lease_sender;
mod metrics;
mod pull_workers;
mod simulated_workers;
pub mod startup;
pub mod succession;
mod supervisor;
mod workers;
