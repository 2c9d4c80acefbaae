//! The store in PostgreSQL, which several coordinators share. One coordinator leads: each of its batches is a transaction that
//! begins with the fence (epoch and number of the batch), so that a leader whose epoch has passed writes nothing and a batch
//! whose answer was lost is never written twice. The others submit jobs and read.
//!
//! Rows are locked in this order: the lease, the fence, jobs, statistics, the counter of events. The transaction that holds the
//! counter commits next, so that events are numbered without gaps in the order of commits.

mod backend;
mod columns;
mod drains;
mod error;
mod housekeeping;
mod ids;
mod io;
mod jobs;
mod leadership;
mod link;
mod listing;
mod loading;
mod members;
mod open;
mod plan;
mod pool;
mod positions;
mod programs;
mod pulse;
mod reads;
mod rows;
mod schema;
mod statistics;
mod target;
mod tls;
mod transaction;
mod transfer;
mod watching;

pub use error::OpenError;
pub use open::{PostgresStore, StoreSettings, open};
pub use transfer::Transfer;
