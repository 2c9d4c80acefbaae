//! A host for the tests: supervisors and compilers are started from it, and with a scenario as its argument it stands
//! for a worker that has another user or is killed.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sandbox::{Call, Config, Limits, LocalProgram, NamedCommand, ProgramHash, Sandbox};
use serde::Deserialize;

/// A call to run, read as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    directory: PathBuf,
    /// An executable for the cage; without it the arguments are a named command.
    native: Option<PathBuf>,
    args: Vec<String>,
    newest_landlock_abi: Option<u32>,
}

/// Prints stderr as it comes and stdout at the end.
fn main() -> Result<(), Box<dyn Error>> {
    sandbox::run_child_if_asked();
    let scenario = std::env::args().nth(1).ok_or("usage: sandbox-test-host SCENARIO")?;
    let Scenario { directory, native, args, newest_landlock_abi } = serde_json::from_str(&scenario)?;
    let config = Config {
        allow_native: true,
        newest_landlock_abi: newest_landlock_abi.unwrap_or(u32::MAX),
        ..Config::new(directory, 1)
    };
    let limits = Limits { wall_time: Duration::from_secs(60), ..Limits::default() };
    let mut call = Call { limits, ..Call::default() };
    let program = match native {
        None => LocalProgram::Named(NamedCommand { argv: args, ..NamedCommand::default() }),
        Some(path) => {
            call.args = args;
            LocalProgram::Native { sha256: ProgramHash::of_reader(std::fs::File::open(&path)?)?, path }
        }
    };
    let mut out = std::io::stdout();
    let finished = Sandbox::open(config)?.run(&program, &call, &AtomicBool::new(false), &mut |chunk| {
        let _ = out.write_all(chunk).and_then(|()| out.flush());
    })?;
    out.write_all(&finished.stdout)?;
    Ok(())
}
