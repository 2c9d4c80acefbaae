//! The store in SQLite through its public face, on real files.

mod backup;
mod contract;
mod crashes;
mod damage;
mod full_disk;
mod helpers;
mod log;
mod migrating;
mod opening;
mod replaced;
mod results;
mod retention;
mod statistics;
