//! The objects of `kubectl apply -k k8s/`, checked without a cluster: every object against its schema, and the agreements among
//! objects, containers and images that no schema knows.
//!
//! Needs `kubectl` on the PATH (1.27 or newer), for its built-in kustomize.

mod api_server;
mod autoscaling;
mod chart;
mod chart_values;
mod checks;
mod custom_resources;
mod defaults;
mod front;
mod helpers;
mod high_availability;
mod images;
mod monitoring;
mod network;
mod schema;
mod sizes;
mod tls;
mod upgrade;
mod workloads;
