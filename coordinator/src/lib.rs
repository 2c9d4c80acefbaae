//! The coordinator: takes questions over HTTP, divides them over the workers that announce themselves, and answers.
//! See [`startup::Coordinator`].

pub mod config;
mod dispatch;
mod grid;
mod jobs;
mod lease_client;
mod metrics;
mod plan;
mod pullers;
mod rates;
mod registry;
mod routes;
mod simulation;
pub mod startup;
