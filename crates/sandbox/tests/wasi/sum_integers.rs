//! The document's example in all its forms: the sum of the integers over five ranges.

use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::{Limits, LocalProgram, Reason};

use crate::helpers::{Grid, call, component, grid_with, program, reason, text};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../programs/sum_integers").join(name)
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

fn grid() -> Grid {
    grid_with(|config| config.allow_native = true)
}

/// n (n - 1) / 2 for n = 500,000,000, by the formula.
const SUM: i128 = 124_999_999_750_000_000;
const STEP: i128 = 100_000_000;

fn assert_sums(grid: &Grid, program: &LocalProgram, usage_code: i32) {
    let mut sum = 0;
    for part in 0..5 {
        let mut call = call(&[&(part * STEP).to_string(), &((part + 1) * STEP).to_string()]);
        call.limits = Limits::default();
        let finished = grid.run(program, &call).expect("finished");
        sum += text(&finished.stdout).trim().parse::<i128>().expect("a number");
    }
    assert_eq!(sum, SUM);
    for (from, to, expected) in [
        ("0", "0", "0"),
        ("5", "4", "0"),
        ("-3", "3", "-3"),
        ("9223372036854775807", "9223372036854775807", "0"),
        ("9223372036854775806", "9223372036854775807", "9223372036854775806"),
        ("-9223372036854775808", "-9223372036854775807", "-9223372036854775808"),
    ] {
        let finished = grid.run(program, &call(&[from, to])).expect("finished");
        assert_eq!(text(&finished.stdout), format!("{expected}\n"), "{from} to {to}");
    }
    for wrong in [&["1"][..], &["1", "x"], &["1", ""], &["", "1"], &["1", "9223372036854775808"], &["1", "2", "3"]] {
        let failure = grid.run(program, &call(wrong)).expect_err("refused");
        assert_eq!(failure.reason, Reason::Exit { code: usage_code }, "{wrong:?}");
        assert_eq!(text(&failure.stderr_tail), "usage: sum_integers FROM TO\n");
    }
    let too_large = call(&["9223372036854775000", "9223372036854775807"]);
    assert_eq!(reason(grid.run(program, &too_large)), Reason::Exit { code: 1 });
}

#[test]
fn the_example_runs_as_a_module_from_wat() {
    let module = wat::parse_file(source("sum_integers.wat")).expect("WAT");
    assert_sums(&grid(), &program(module), 2);
}

#[test]
fn the_example_runs_as_a_component() {
    let module = wat::parse_file(source("sum_integers.wat")).expect("WAT");
    // A component says that it failed, not with which number.
    assert_sums(&grid(), &program(component(&module)), 1);
}

#[test]
fn the_example_runs_as_a_module_from_c() {
    let Some(clang) = clang() else {
        eprintln!("skipped: no clang with lld and wasi-libc; the WAT version stands for it");
        return;
    };
    let path = built("sum_integers.wasm");
    let mut compiler = Command::new(clang);
    let compiled = compiler.args(["--target=wasm32-wasi", "-O2", "-o"]).arg(&path).arg(source("sum_integers.c"));
    assert!(compiled_well(compiled), "clang");
    let bytes = std::fs::read(&path).expect("built");
    std::fs::remove_file(path).expect("removed");
    assert_sums(&grid(), &program(bytes), 2);
}

#[test]
fn the_example_runs_as_a_native_executable() {
    let path = built("sum_integers");
    let mut gcc = Command::new("gcc");
    assert!(compiled_well(gcc.args(["-O2", "-static", "-o"]).arg(&path).arg(source("sum_integers.c"))), "gcc");
    let sha256 = sandbox::ProgramHash::of_reader(std::fs::File::open(&path).expect("built")).expect("read");
    assert_sums(&grid(), &LocalProgram::Native { sha256, path: path.clone() }, 2);
    std::fs::remove_file(path).expect("removed");
}

fn compiled_well(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// A clang that links WASI programs: Debian's clang, lld, wasi-libc and libclang-rt-dev-wasm32.
fn clang() -> Option<String> {
    let names = ["clang", "clang-19", "clang-16", "clang-15", "clang-14"].map(str::to_owned);
    let probe = built("probe");
    let source = built("probe.c");
    std::fs::write(&source, "int main(void) { return 0; }").expect("written");
    let found = names.into_iter().find(|clang| {
        let mut command = Command::new(clang);
        command.args(["--target=wasm32-wasi", "-o"]).arg(&probe).arg(&source).stderr(std::process::Stdio::null());
        compiled_well(&mut command)
    });
    let _ = (std::fs::remove_file(probe), std::fs::remove_file(source));
    found
}
