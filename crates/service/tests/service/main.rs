//! Listeners over real sockets.

mod access;
mod clients;
mod compression;
mod helpers;
mod manners;
mod metrics;
mod sites;
mod tls;
