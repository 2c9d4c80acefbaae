//! The store through its public face, on real files.

mod accepting;
mod completing;
mod crashes;
mod following;
mod full_disk;
mod helpers;
mod listing;
mod opening;
mod results;
mod retention;
mod tasks;
