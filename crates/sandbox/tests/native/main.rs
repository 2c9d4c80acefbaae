//! Native and named programs, friendly and hostile, as a worker runs them.

mod cage;
mod helpers;
mod host;
mod limits;
mod named;
mod tree;
