//! The tables, one file each.

pub(crate) mod cpu;
pub(crate) mod dividing;
pub(crate) mod grid;
pub(crate) mod growth;
pub(crate) mod job;
pub(crate) mod kafka;
pub(crate) mod kernel;
pub(crate) mod leases;
pub(crate) mod load;
pub(crate) mod prefix;
pub(crate) mod requests;
pub(crate) mod starts;
pub(crate) mod submissions;
pub(crate) mod takeovers;
pub(crate) mod tasks;
