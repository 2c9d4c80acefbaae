//! The compiler, in a process of its own that can be killed: nothing else interrupts it, and a hostile module that makes
//! it fail fails alone.
//!
//! The child reads the module from standard input and writes the compiled code to standard output. What is wrong with a
//! module goes to standard error, with [`IS_BAD`] as the exit code.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wasmparser::{Element, ElementItems, ElementKind, Parser, Payload};
use wasmtime::{Engine, format_err};

use super::Compile;
use super::engine::engine;
use super::load::Artifact;
use crate::entry::COMPILE;
use crate::failure::Reason;
use crate::program::{Call, Input, Limits};
use crate::sandbox::CompileLimits;

/// The module is not valid.
const IS_BAD: u8 = 65;
/// The exit code of a Rust program that panics.
const PANICKED: i32 = 101;
/// The first bytes of a module's name section would be enough; what is wrong is told in a line or a few.
const MESSAGE_BYTES: usize = 2048;
/// A compiler has one thread; the engine may start a few more.
const PROCESSES: u32 = 16;
/// Imports, globals and elements of passive segments of one module. Each takes up to 32 bytes of every instance, which a task's limit
/// of memory does not count, and a component may have many instances.
const MOST_FIELDS: usize = 50_000;

/// Compiles a module in a child.
pub(super) fn compile(
    module: Input,
    limits: &CompileLimits,
    run: &Compile<'_>,
    stop: &AtomicBool,
) -> Result<Artifact, Reason> {
    let call = Call {
        args: vec![COMPILE.to_owned()],
        stdin: module,
        env: BTreeMap::new(),
        limits: Limits {
            wall_time: limits.wall_time,
            grace: Duration::ZERO,
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.compiled_bytes,
            scratch_bytes: 1 << 20,
            processes: PROCESSES,
        },
        reproducible: false,
        spool: None,
    };
    let failure = match run(&call) {
        Ok(finished) => return Ok(Artifact::fresh(finished.stdout)),
        Err(failure) => failure,
    };
    if stop.load(Ordering::Relaxed) {
        return Err(Reason::Canceled);
    }
    let text = || {
        let tail = &failure.stderr_tail;
        String::from_utf8_lossy(&tail[..tail.len().min(MESSAGE_BYTES)]).trim().to_owned()
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the worker's and stay as they are")]
    let reason = match failure.reason {
        Reason::TimeLimit { limit } => Reason::CompileLimit { what: format!("{limit:?}") },
        Reason::MemoryLimit { limit } => Reason::CompileLimit { what: format!("{limit} bytes of memory") },
        Reason::OutputLimit { limit } => Reason::CompileLimit { what: format!("{limit} bytes of compiled code") },
        Reason::Exit { code } if code == i32::from(IS_BAD) => Reason::BadModule { message: text() },
        // The kernel's limit on a process's data is met before the watch has seen the memory touched.
        Reason::Signal { .. } if text().contains("memory allocation") => {
            Reason::CompileLimit { what: format!("{} bytes of memory", limits.memory_bytes) }
        }
        // The machine is out of memory, whatever the module.
        Reason::Signal { signal: libc::SIGKILL } => Reason::sandbox("compile it", "the compiler was killed"),
        // A panic or a crash of the compiler is the module's doing.
        Reason::Exit { code: PANICKED }
        | Reason::Signal {
            signal: libc::SIGABRT | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGSEGV | libc::SIGTRAP,
        } => Reason::BadModule { message: format!("the compiler fails on it ({}): {}", failure.reason, text()) },
        // The compiler does not start, has no engine or gets a signal: whatever the module, and perhaps only now.
        Reason::Exit { .. } | Reason::Signal { .. } | Reason::NotExecutable { .. } => {
            Reason::sandbox("compile it", format!("the compiler failed ({}): {}", failure.reason, text()))
        }
        reason => reason,
    };
    Err(reason)
}

/// Runs as the child; returns the process's exit code.
pub(crate) fn compile_on_standard_streams() -> i32 {
    let mut module = Vec::new();
    if let Err(error) = std::io::stdin().lock().read_to_end(&mut module) {
        // The worker may be gone.
        let _ = writeln!(std::io::stderr(), "read the module: {error}");
        return 1;
    }
    let compiled = engine()
        .map_err(|error| (1, error))
        .and_then(|engine| precompile(&engine, &module).map_err(|error| (i32::from(IS_BAD), error)));
    match compiled {
        Err((code, error)) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            code
        }
        Ok(code) => i32::from(std::io::stdout().lock().write_all(&code).is_err()),
    }
}

fn precompile(engine: &Engine, module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    check_fields(module)?;
    if Parser::is_component(module) { engine.precompile_component(module) } else { engine.precompile_module(module) }
}

/// Refuses a module, also within a component, whose instances take much memory beside their linear memories and tables.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other sections take nothing of an instance")]
fn check_fields(module: &[u8]) -> wasmtime::Result<()> {
    let mut fields = 0;
    // The compiler tells what is wrong with bytes that cannot be parsed.
    for payload in Parser::new(0).parse_all(module).map_while(Result::ok) {
        match payload {
            Payload::Version { .. } => fields = 0,
            Payload::ImportSection(section) => fields += section.into_imports().count(),
            Payload::GlobalSection(section) => fields += section.into_iter().count(),
            Payload::ElementSection(section) => {
                fields += section.into_iter().map_while(Result::ok).map(kept_elements).sum::<usize>();
            }
            _ => {}
        }
        if fields > MOST_FIELDS {
            return Err(format_err!("a module has more than {MOST_FIELDS} imports, globals and passive elements"));
        }
    }
    Ok(())
}

/// The elements of a segment of which each instance has its own.
fn kept_elements(segment: Element<'_>) -> usize {
    let elements = match segment.items {
        ElementItems::Functions(functions) => functions.count(),
        ElementItems::Expressions(_, expressions) => expressions.count(),
    };
    match segment.kind {
        ElementKind::Passive => elements as usize,
        ElementKind::Active { .. } | ElementKind::Declared => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailedCall, Finished, Usage};

    #[test]
    fn a_compiler_that_fails_without_a_crash_tells_nothing_about_the_module() {
        let reason_for = |reason: Reason| {
            let failure = FailedCall { reason, stderr_tail: b"why".to_vec(), usage: Usage::default() };
            let run = |_: &Call| -> Result<Finished, Box<FailedCall>> { Err(Box::new(failure.clone())) };
            compile(Input::Empty, &CompileLimits::default(), &run, &AtomicBool::new(false)).err().expect("no code")
        };
        let invalid = Reason::Exit { code: i32::from(IS_BAD) };
        assert_eq!(reason_for(invalid), Reason::BadModule { message: "why".to_owned() });
        for crash in [Reason::Exit { code: PANICKED }, Reason::Signal { signal: libc::SIGSEGV }] {
            let Reason::BadModule { message } = reason_for(crash) else { panic!("it is the module's doing") };
            assert!(message.starts_with("the compiler fails on it (") && message.ends_with("why"), "{message}");
        }
        for of_the_worker in [
            Reason::Exit { code: 1 },
            // The dynamic linker has not found a library.
            Reason::Exit { code: 127 },
            Reason::Signal { signal: libc::SIGTERM },
            Reason::Signal { signal: libc::SIGKILL },
            Reason::NotExecutable { message: "Cannot allocate memory (os error 12)".to_owned() },
        ] {
            let told = reason_for(of_the_worker.clone());
            assert!(matches!(told, Reason::Sandbox { .. }), "{of_the_worker}: {told}");
        }
    }
}
