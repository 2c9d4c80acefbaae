//! `divvy program run`.

use std::fs;
use std::io::{Write, stderr, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::ProgramKind;
use sandbox::{Call, Config, Input, Limits, LocalProgram, Sandbox, Source};
use workloads::ProgramLimits;

use super::put::hash_of;
use crate::arguments::{RunProgram, each_once};
use crate::failure::Failure;
use crate::print::unwritable;

const DEFAULT_TIME: Duration = Duration::from_hours(1);

pub(super) fn run(arguments: &RunProgram, bytes: Vec<u8>, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(|error| Failure::Failed(format!("make a directory: {error}")))?;
    let config = Config { allow_native: true, ..Config::new(directory.path().join("sandbox"), 1) };
    let sandbox = Sandbox::open(config).map_err(|error| Failure::Failed(error.to_string()))?;
    let (program, call) = (program(bytes, directory.path())?, call(arguments)?);
    // Compiling is no part of a task's time.
    sandbox.prepare(&program, stop).map_err(|failure| Failure::Failed(failure.reason.to_string()))?;
    let finished = sandbox.run(&program, &call, stop, &mut |chunk| {
        // A closed stderr does not fail the run.
        let _ = stderr().write_all(chunk);
    });
    let finished = finished.map_err(|failure| Failure::Failed(failure.reason.to_string()))?;
    let mut out = stdout();
    out.write_all(&finished.stdout).and_then(|()| out.flush()).map_err(|error| unwritable(&error))
}

fn program(bytes: Vec<u8>, directory: &Path) -> Result<LocalProgram, Failure> {
    let sha256 = sandbox::ProgramHash::from(hash_of(&bytes).0);
    match ProgramKind::of(&bytes) {
        Some(ProgramKind::Wasm) => Ok(LocalProgram::Wasm { sha256, source: Source::Bytes(bytes.into()) }),
        Some(ProgramKind::Native) => {
            // A worker makes what it has fetched executable, whatever the file's mode is here.
            let copy = directory.join("program");
            let mut options = fs::OpenOptions::new();
            let written = options.write(true).create_new(true).mode(0o500).open(&copy);
            written
                .and_then(|mut file| file.write_all(&bytes))
                .map_err(|error| Failure::Failed(format!("copy the program: {error}")))?;
            Ok(LocalProgram::Native { sha256, path: copy })
        }
        None => {
            Err(Failure::Failed("it is neither WebAssembly nor an executable (ELF, or a script with #!)".to_owned()))
        }
    }
}

fn call(arguments: &RunProgram) -> Result<Call, Failure> {
    let (given, default) = (&arguments.limits, ProgramLimits::default());
    let limits = Limits {
        wall_time: arguments.timeout.unwrap_or(DEFAULT_TIME),
        memory_bytes: given.memory.unwrap_or(default.memory_bytes),
        output_bytes: given.output_limit.unwrap_or(default.output_bytes),
        ..Limits::default()
    };
    Ok(Call {
        args: arguments.args.clone(),
        stdin: arguments.stdin.clone().map_or(Input::Empty, Input::File),
        env: each_once("--env", &given.env)?,
        limits,
        reproducible: given.reproducible,
        spool: None,
    })
}
