//! A sandbox over the test host's compilers, and modules from WAT.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox::{Call, Config, FailedCall, Finished, Limits, LocalProgram, ProgramHash, Reason, Sandbox, Source};

pub(crate) const TEST_HOST: &str = env!("CARGO_BIN_EXE_sandbox-test-host");
pub(crate) const SLACK: Duration = Duration::from_secs(1);

pub(crate) type RunResult = Result<Finished, Box<FailedCall>>;

pub(crate) struct Grid {
    pub(crate) sandbox: Sandbox,
    pub(crate) directory: PathBuf,
    _directory: tempfile::TempDir,
}

pub(crate) fn grid() -> Grid {
    grid_with(|_| {})
}

pub(crate) fn grid_with(change: impl FnOnce(&mut Config)) -> Grid {
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path().join("sandbox");
    let mut config = Config { helper: TEST_HOST.into(), ..Config::new(&directory, 2) };
    change(&mut config);
    Grid { sandbox: Sandbox::open(config).expect("a sandbox"), directory, _directory: temporary }
}

impl Grid {
    pub(crate) fn run(&self, program: &LocalProgram, call: &Call) -> RunResult {
        self.sandbox.run(program, call, &AtomicBool::new(false), &mut |_| {})
    }

    /// Runs what may be hostile: it ends within its limit, and the next call works.
    pub(crate) fn hostile(&self, program: &LocalProgram, call: &Call) -> RunResult {
        let next = module(NOTHING);
        let prepared = |program| self.sandbox.prepare(program, &AtomicBool::new(false));
        prepared(&next).expect("compiled");
        prepared(program).expect("compiled");
        let outcome = in_time(call.limits.wall_time + SLACK, || {
            let started_at = Instant::now();
            (self.run(program, call), started_at.elapsed())
        });
        self.run(&next, &super::helpers::call(&[])).expect("the next call works");
        outcome
    }

    pub(crate) fn compiled_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.join("compiled")).expect("the cache").flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

pub(crate) const NOTHING: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// A module that writes what `body` has put at 0: `$out` takes a length, `$err` too.
pub(crate) fn writer(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 32)
          (func $write (param $file i32) (param $length i32) (result i32)
            (i32.store (i32.const 2000000) (i32.const 0))
            (i32.store (i32.const 2000004) (local.get $length))
            (call $fd_write (local.get $file) (i32.const 2000000) (i32.const 1) (i32.const 2000008)))
          {body})"#
    )
}

pub(crate) fn module(wat: &str) -> LocalProgram {
    program(wat::parse_str(wat).expect("WAT"))
}

pub(crate) fn program(bytes: impl Into<Bytes>) -> LocalProgram {
    let bytes = bytes.into();
    LocalProgram::Wasm { sha256: ProgramHash::of(&bytes), source: Source::Bytes(bytes) }
}

pub(crate) fn call(args: &[&str]) -> Call {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Call { args, limits: limits(), ..Call::default() }
}

pub(crate) fn with_limits(change: impl FnOnce(&mut Limits)) -> Call {
    let mut call = call(&[]);
    change(&mut call.limits);
    call
}

pub(crate) fn limits() -> Limits {
    Limits { wall_time: Duration::from_secs(20), memory_bytes: 64 << 20, output_bytes: 1 << 20, ..Limits::default() }
}

/// Does something that has to be done in time. It is tried again when it is late, since other processes of the machine
/// may have had its time; what is late by itself is so each time.
pub(crate) fn in_time<T>(limit: Duration, mut act: impl FnMut() -> (T, Duration)) -> T {
    let mut last = Duration::ZERO;
    for _ in 0..4 {
        let (done, took) = act();
        if took <= limit {
            return done;
        }
        last = took;
    }
    panic!("it took {last:?}, more than {limit:?}")
}

pub(crate) fn reason(outcome: RunResult) -> Reason {
    outcome.expect_err("it fails").reason
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// A core module as a component, by the adapter that wasmtime publishes.
pub(crate) fn component(module: &[u8]) -> Vec<u8> {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    };
    wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        })
        .and_then(|mut encoder| encoder.encode())
        .expect("a component")
}
