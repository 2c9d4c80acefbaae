//! The limit of open files, which the connections of a run must stay below: their failures would count as the service's.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the connections: the runtime's, the report's, the standard ones.
const OTHER_FILES: u64 = 64;

/// Raises the limit of this process as far as the system allows.
///
/// # Errors
/// The system's limit is too low for this many connections at once.
pub(crate) fn make_room(connections: usize) -> Result<()> {
    let needed = connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // The limit is raised to the need only: the maximum may be huge.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum });
    ensure!(
        raised.is_ok(),
        "request.outstanding_max = {connections} needs {needed} open files, but this process may open {}: raise it with \
         ulimit -n {needed}",
        maximum.or(current).unwrap_or(0)
    );
    Ok(())
}
