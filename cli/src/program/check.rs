//! `divvy program check`.

use std::sync::atomic::{AtomicBool, Ordering};

use model::ProgramKind;
use sandbox::{Config, Import, Kind, LocalProgram, Sandbox, Source, check_executable, inspect};
use serde_json::{Value, json};
use workloads::ProgramLimits;

use super::put::hash_of;
use crate::arguments::{CheckProgram, Format};
use crate::failure::Failure;
use crate::print::{print_json, print_line};
use crate::printable::printable;

pub(super) fn run(arguments: &CheckProgram, format: Format, bytes: Vec<u8>, stop: &AtomicBool) -> Result<(), Failure> {
    let (sha256, mut found) = (hash_of(&bytes).to_string(), Found::default());
    let checked = check(arguments, bytes, stop, &mut found);
    // A check that was interrupted says nothing of the program.
    if checked.is_err() && stop.load(Ordering::Relaxed) {
        return checked;
    }
    match format {
        Format::Table => found.print(&sha256, checked.is_ok())?,
        Format::Json => print_json(&found.to_json(&sha256, checked.as_ref().err()))?,
        Format::Quiet => print_line(&sha256)?,
    }
    checked
}

/// The findings about a program.
#[derive(Debug, Default)]
struct Found {
    form: Option<Form>,
    imports: Vec<Import>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Module,
    Component,
    Executable,
}

impl Found {
    fn print(&self, sha256: &str, runs: bool) -> Result<(), Failure> {
        print_line(&format!("sha256  {sha256}"))?;
        let Some(form) = self.form else { return Ok(()) };
        print_line(match form {
            Form::Module => "kind    a WebAssembly module (WASI preview 1)",
            Form::Component => "kind    a WebAssembly component (WASI preview 2)",
            Form::Executable => "kind    an executable: only workers with DIVVY_ALLOW_NATIVE=1 run it",
        })?;
        for import in &self.imports {
            let missing = if import.provided { "" } else { "  (no worker has it)" };
            let name = [import.module.as_str(), import.name.as_str()].join(" ");
            print_line(&format!("import  {}{missing}", printable(name.trim_end())))?;
        }
        if runs && form != Form::Executable {
            print_line("ok      a worker would run it")?;
        }
        Ok(())
    }

    fn to_json(&self, sha256: &str, problem: Option<&Failure>) -> Value {
        let form = self.form.map(|form| match form {
            Form::Module => "module",
            Form::Component => "component",
            Form::Executable => "executable",
        });
        let imports: Vec<_> = self
            .imports
            .iter()
            .map(|import| json!({"module": import.module, "name": import.name, "provided": import.provided}))
            .collect();
        let mut told = json!({"sha256": sha256, "kind": form, "imports": imports, "runs": problem.is_none()});
        if let Some(problem) = problem {
            told["problem"] = Value::from(problem.to_string());
        }
        told
    }
}

fn check(arguments: &CheckProgram, bytes: Vec<u8>, stop: &AtomicBool, found: &mut Found) -> Result<(), Failure> {
    match ProgramKind::of(&bytes) {
        Some(ProgramKind::Wasm) => {
            let memory_bytes = arguments.memory.unwrap_or(ProgramLimits::default().memory_bytes);
            check_module(bytes, memory_bytes, stop, found)
        }
        Some(ProgramKind::Native) => {
            found.form = Some(Form::Executable);
            check_executable(&bytes).map_err(|reason| would_not_run(&reason.to_string()))
        }
        None => {
            Err(Failure::Failed("it is neither WebAssembly nor an executable (ELF, or a script with #!)".to_owned()))
        }
    }
}

fn check_module(bytes: Vec<u8>, memory_bytes: u64, stop: &AtomicBool, found: &mut Found) -> Result<(), Failure> {
    let inspection = inspect(&bytes).map_err(|reason| would_not_run(&reason.to_string()))?;
    found.form = Some(match inspection.kind {
        Kind::Module => Form::Module,
        Kind::Component => Form::Component,
    });
    found.imports.clone_from(&inspection.imports);
    if !inspection.runs() {
        return Err(would_not_run(&inspection.problems.join("; ")));
    }
    prepare(bytes, stop)?;
    let start_bytes = inspection.start_memory_bytes;
    if start_bytes > memory_bytes {
        return Err(would_not_run(&format!(
            "it starts with {start_bytes} bytes of memory, and its job gives it {memory_bytes} (--memory)"
        )));
    }
    Ok(())
}

/// Compiles and links it as a worker does: the types of its imports and of its entry show only then.
fn prepare(bytes: Vec<u8>, stop: &AtomicBool) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(|error| Failure::Failed(format!("make a directory: {error}")))?;
    let sandbox = Sandbox::open(Config::new(directory.path().join("sandbox"), 1))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let sha256 = sandbox::ProgramHash::from(hash_of(&bytes).0);
    let program = LocalProgram::Wasm { sha256, source: Source::Bytes(bytes.into()) };
    let prepared = sandbox.prepare(&program, stop);
    prepared.map_err(|failure| would_not_run(&failure.reason.to_string()))
}

fn would_not_run(why: &str) -> Failure {
    Failure::Failed(format!("no worker would run it: {why}"))
}
