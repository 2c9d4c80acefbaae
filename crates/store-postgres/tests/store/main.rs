//! The store in PostgreSQL through its public face, on a real server.

mod contract;
mod damage;
mod doubt;
mod ended_sessions;
mod failing;
mod full_server;
mod helpers;
mod leases;
mod lists;
mod moving;
mod opening;
mod retention;
mod roles;
mod silence;
mod statistics;
