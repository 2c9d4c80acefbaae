//! Native programs: a supervisor process per running task, and the cage around uploaded executables.

mod cage;
mod executable;
mod filter;
mod host;
mod launch;
mod memory_kills;
mod orphans;
mod search;
mod share;
mod streams;
pub(crate) mod supervisor;
mod sys;
mod tree;
mod watch;
mod wire;

pub(crate) use executable::Executables;
pub use executable::check_executable;
pub(crate) use host::{Job, Supervisors};
pub(crate) use orphans::kill_programs_of;
pub(crate) use streams::Ran;
pub(crate) use sys::{has_seccomp_filters, landlock_abi};
