//! `divvy program check` and `divvy program run`: a program before it is sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::helpers::{NOWHERE, assert_fails, divvy, eventually, minding_hang_up, run_with_input};

/// Imports with their real types, and memory for them.
const PREAMBLE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)"#;

/// Writes its stdin, up to 1,024 bytes, and then its environment as it is in memory.
const ECHO: &str = r#"(func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1024))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $sizes (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 2048) (i32.const 4096)))
    (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.load (i32.const 20)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("write a file");
        path
    }

    fn wat(&self, text: &str) -> PathBuf {
        self.write("program.wasm", wat::parse_str(text).expect("WAT"))
    }

    /// A module with [`PREAMBLE`].
    fn module(&self, body: &str) -> PathBuf {
        self.wat(&format!("(module {PREAMBLE} {body})"))
    }
}

fn check(file: &Path, options: &[&str]) -> Output {
    let file = file.to_str().expect("UTF-8");
    divvy(&[&["program", "check", file], options].concat()).output().expect("run the command")
}

fn run(file: &Path, options: &[&str]) -> Output {
    let file = file.to_str().expect("UTF-8");
    divvy(&[&["program", "run", file], options].concat()).output().expect("run the command")
}

fn stdout(output: &Output) -> String {
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn check_tells_what_a_module_imports_and_that_it_would_run() {
    let files = Files::new();
    let told = stdout(&check(&files.module(ECHO), &[]));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("sha256  ") && lines[0].len() == 8 + 64, "{told}");
    assert_eq!(lines[1], "kind    a WebAssembly module (WASI preview 1)");
    assert!(lines.contains(&"import  wasi_snapshot_preview1 environ_get"), "{told}");
    assert_eq!(lines.last(), Some(&"ok      a worker would run it"));
}

#[test]
fn check_is_json_or_the_hash_alone_where_that_is_asked_for() {
    let files = Files::new();
    let file = files.module(ECHO);
    let told: Value = serde_json::from_str(&stdout(&check(&file, &["--output", "json"]))).expect("JSON");
    assert_eq!((told["kind"].as_str(), told["runs"].as_bool()), (Some("module"), Some(true)), "{told}");
    let import = json!({"module": "wasi_snapshot_preview1", "name": "environ_get", "provided": true});
    assert!(told["imports"].as_array().is_some_and(|imports| imports.contains(&import)), "{told}");
    assert_eq!(stdout(&check(&file, &["--output", "quiet"])).trim_end(), told["sha256"].as_str().expect("a hash"));

    let refused = check(&files.wat(r#"(module (func (export "run")))"#), &["--output", "json"]);
    assert_fails(&refused, 1);
    let told: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
    let problem = told["problem"].as_str().expect("a problem");
    assert!(told["runs"] == false && problem.contains("it exports no function _start"), "{told}");
}

#[test]
fn check_refuses_whatever_a_worker_would_refuse() {
    let files = Files::new();
    let start = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let huge = [wat::parse_str(format!("(module {start})")).expect("WAT"), custom_section(65 << 20)].concat();
    for (file, told) in [
        (files.write("text", "no program"), "neither WebAssembly nor an executable"),
        (files.write("garbage", b"\0asm\x01\0\0\0garbage"), "it cannot be run"),
        (files.write("huge", huge), "at most 67108864 are accepted"),
    ] {
        let line = assert_fails(&check(&file, &[]), 1);
        assert!(line.contains(told), "{}: {line}", file.display());
    }
    for (module, told) in [
        (r#"(module (func (export "run")))"#.to_owned(), "it exports no function _start"),
        (format!(r#"(module (import "env" "secret" (func)) {start})"#), "no worker has its import env secret"),
        (
            format!(r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i64))) {start})"#),
            "incompatible import type",
        ),
        (r#"(module (func (export "_start") (param i32)))"#.to_owned(), "no function _start without parameters"),
        (
            r#"(module (memory (export "memory") 8192) (func (export "_start")))"#.to_owned(),
            "it starts with 536870912 bytes of memory, and its job gives it 268435456 (--memory)",
        ),
        (
            r#"(component
                (import "wasi:cli/nonsense@0.2.0" (instance (export "f" (func))))
                (core module $m (func (export "run") (result i32) i32.const 0))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $e (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $e)))"#
                .to_owned(),
            "wasi:cli/nonsense@0.2.0",
        ),
    ] {
        let line = assert_fails(&check(&files.wat(&module), &[]), 1);
        assert!(line.starts_with("error: no worker would run it: ") && line.contains(told), "{module}: {line}");
    }
    let large = files.wat(r#"(module (memory (export "memory") 8192) (func (export "_start")))"#);
    stdout(&check(&large, &["--memory", "1GiB"]));
}

#[test]
fn check_looks_at_the_processor_that_an_executable_is_for() {
    let files = Files::new();
    let this = fs::read(env!("CARGO_BIN_EXE_divvy")).expect("the command");
    let told = stdout(&check(&files.write("this", &this[..4096]), &[]));
    assert!(told.contains("kind    an executable: only workers with DIVVY_ALLOW_NATIVE=1 run it"), "{told}");
    let mut other = this[..4096].to_vec();
    // The field e_machine of ELF, which is EM_SPARCV9 here.
    other[18..20].copy_from_slice(&[43, 0]);
    let line = assert_fails(&check(&files.write("other", other), &[]), 1);
    assert!(line.contains("another kind of processor"), "{line}");
    stdout(&check(&files.write("script", "#!/bin/sh\n"), &[]));
}

#[test]
fn run_gives_a_module_its_stdin_and_its_environment() {
    let files = Files::new();
    let input = files.write("input", "hello\n");
    let options = ["--stdin", input.to_str().expect("UTF-8"), "--env", "NAME=value"];
    assert_eq!(stdout(&run(&files.module(ECHO), &options)), "hello\nNAME=value\0");
    assert_eq!(stdout(&run(&files.module(ECHO), &[])), "", "neither is inherited");
}

#[test]
fn run_fails_with_the_reason_that_its_task_would_have() {
    let files = Files::new();
    for (body, options, told) in [
        (r#"(func (export "_start") (call $exit (i32.const 3)))"#, &[][..], "it exited with code 3"),
        (r#"(func (export "_start") (loop $l (br $l)))"#, &["--timeout", "1s"], "longer than its limit of 1s"),
        (
            r#"(func (export "_start") (drop (memory.grow (i32.const 32))))"#,
            &["--memory", "1MiB"],
            "more memory than its limit of 1048576 bytes",
        ),
        (
            r#"(func (export "_start") (i32.store (i32.const 4) (i32.const 4096))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"#,
            &["--output-limit", "100"],
            "more to stdout than its limit of 100 bytes",
        ),
        (r#"(func (export "_start") unreachable)"#, &[], "it trapped"),
        (r#"(func (export "run"))"#, &[], "it exports no function _start"),
    ] {
        let line = assert_fails(&run(&files.module(body), options), 1);
        assert!(line.contains(told), "{body}: {line}");
    }
    let line = assert_fails(&run(&files.write("text", "no program"), &[]), 1);
    assert!(line.contains("neither WebAssembly nor an executable"), "{line}");
    assert_fails(&run(Path::new("/no/such/file"), &[]), 2);
}

#[test]
fn run_gives_an_executable_its_arguments_and_streams() {
    let files = Files::new();
    let script = files.write("script", "#!/bin/sh\nread line\necho \"$1-$NAME-$line\"\necho told >&2\nexit \"$2\"\n");
    let input = files.write("input", "stdin\n");
    let options = |code: &'static str| {
        let input = input.to_str().expect("UTF-8");
        ["--stdin", input, "--env", "NAME=value", "--", "argument", code]
    };
    let output = run(&script, &options("0"));
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(0), "argument-value-stdin\n"),
        "{output:?}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "told\n");
    let output = run(&script, &options("7"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(1), "told\nerror: it exited with code 7\n"));
}

#[test]
fn program_comes_from_stdin_where_its_file_is_a_dash() {
    let files = Files::new();
    let script = "#!/bin/sh\necho done\n";
    let from_stdin = |arguments: &[&str]| run_with_input(divvy(arguments).env("DIVVY_URL", NOWHERE), script);
    let told = stdout(&from_stdin(&["program", "check", "-", "--output", "quiet"]));
    assert_eq!(told, stdout(&check(&files.write("script", script), &["--output", "quiet"])));
    assert_eq!(stdout(&from_stdin(&["program", "run", "-"])), "done\n");
    assert_fails(&from_stdin(&["program", "put", "-"]), 3);
}

#[test]
fn interrupted_run_leaves_no_directory_behind() {
    let (files, folder) = (Files::new(), tempdir().expect("a folder"));
    let entries = || fs::read_dir(folder.path()).expect("a folder").count();
    let endless = files.module(r#"(func (export "_start") (loop $l (br $l)))"#);
    for file in [files.write("script", "#!/bin/sh\nsleep 600\n"), endless] {
        for signal in ["-INT", "-TERM", "-HUP"] {
            let mut command = divvy(&["program", "run", file.to_str().expect("UTF-8")]);
            let mut process = minding_hang_up(command.env("TMPDIR", folder.path())).spawn().expect("run the command");
            // The handlers are there before the directory.
            eventually("the program has its directory", || (entries() == 1).then_some(()));
            let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("run kill");
            assert!(sent.success());
            let status = process.wait().expect("wait for the command");
            assert_eq!((status.code(), entries()), (Some(130), 0), "{signal} {}", file.display());
        }
    }
}

/// A section of a module that means nothing.
fn custom_section(bytes: usize) -> Vec<u8> {
    let mut section = vec![0];
    let mut length = bytes + 1;
    while length > 0x7f {
        section.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    section.push(u8::try_from(length).expect("seven bits"));
    // The section's name is empty.
    section.resize(section.len() + 1 + bytes, 0);
    section
}
