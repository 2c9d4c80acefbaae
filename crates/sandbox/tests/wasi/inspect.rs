use sandbox::{Import, Kind, inspect};

use crate::helpers::{component, writer};

#[test]
fn a_module_tells_what_it_needs() {
    let runs = inspect(&wat::parse_str(writer("(func (export \"_start\"))")).expect("WAT")).expect("valid");
    assert_eq!(runs.kind, Kind::Module);
    let names: Vec<_> = runs.imports.iter().map(Import::to_string).collect();
    assert_eq!(names, ["wasi_snapshot_preview1 fd_write", "wasi_snapshot_preview1 proc_exit"]);
    assert!(runs.runs(), "{:?}", runs.problems);
    let wrong =
        wat::parse_str(r#"(module (import "env" "launch" (func)) (import "env" "launch" (func)))"#).expect("WAT");
    let problems = inspect(&wrong).expect("valid").problems;
    assert_eq!(
        problems,
        ["no worker has its import env launch", "it exports no function _start: it is a library, not a command",]
    );
}

#[test]
fn a_component_tells_what_it_needs() {
    let module = wat::parse_str(writer("(func (export \"_start\"))")).expect("WAT");
    let runs = inspect(&component(&module)).expect("valid");
    assert_eq!(runs.kind, Kind::Component);
    assert!(runs.imports.iter().any(|import| import.module.starts_with("wasi:cli/stdout@0.2.")), "{:?}", runs.imports);
    assert!(runs.runs(), "{:?}", runs.problems);
    let wrong = wat::parse_str(r#"(component (import "custom:thing/x" (func)))"#).expect("WAT");
    let problems = inspect(&wrong).expect("valid").problems;
    assert_eq!(problems[0], "no worker has its import custom:thing/x");
    assert_eq!(problems.len(), 2);
}

#[test]
fn memory_at_the_start_is_told() {
    let start = |wat: &str| inspect(&wat::parse_str(wat).expect("WAT")).expect("valid").start_memory_bytes;
    assert_eq!(start("(module)"), 0);
    assert_eq!(start("(module (memory 3))"), 3 << 16);
    assert_eq!(start("(module (memory 8192 8192))"), 512 << 20);
}

#[test]
fn what_is_no_module_is_told_so() {
    for bytes in [&b""[..], b"text", b"\0asm\x01\0\0\0\x7f"] {
        assert!(matches!(inspect(bytes), Err(sandbox::Reason::BadModule { .. })));
    }
}

/// The engine has neither threads nor garbage collection, and says so when it compiles.
#[test]
fn features_that_the_engine_lacks_are_told() {
    for wat in ["(module (memory 1 2 shared))", "(module (type (struct (field i32))))"] {
        assert!(inspect(&wat::parse_str(wat).expect("WAT")).is_err(), "{wat}");
    }
}
