use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandbox::{Blame, LocalProgram, ProgramHash, Reason, Source};

use crate::helpers::{NOTHING, SLACK, call, grid, grid_with, in_time, module, program, reason, text, writer};

fn hello(word: &str) -> LocalProgram {
    let body = format!(
        "(data (i32.const 0) \"{word}\")
        (func (export \"_start\") (drop (call $write (i32.const 1) (i32.const {}))))",
        word.len()
    );
    module(&writer(&body))
}

#[test]
fn bytes_that_are_no_module_are_told_so_and_remembered() {
    let grid = grid();
    let mut cut = wat::parse_str(NOTHING).expect("WAT");
    cut.truncate(cut.len() - 1);
    for bytes in [&b""[..], b"not a module", b"\0asm\x01\0\0\0\x7f", &cut, b"\x7fELF\x02\x01\x01"] {
        let program = program(bytes.to_vec());
        let failure = grid.run(&program, &call(&[])).expect_err("no module");
        assert!(matches!(failure.reason, Reason::BadModule { .. }), "{failure}");
        assert_eq!(failure.reason.blame(), Blame::Program);
        // The source is gone, and the answer is the same: nobody looks at it again.
        let LocalProgram::Wasm { sha256, .. } = program else { panic!("WASM") };
        let gone = LocalProgram::Wasm { sha256, source: Source::File("/nowhere".into()) };
        assert_eq!(grid.run(&gone, &call(&[])).expect_err("no module").reason, failure.reason);
    }
    grid.run(&hello("x"), &call(&[])).expect("the next call works");
}

#[test]
fn what_no_worker_has_is_named() {
    let grid = grid();
    let wrong = [
        (r#"(module (import "env" "launch" (func)) (func (export "_start")))"#, "env::launch"),
        (r#"(module (func (export "run")))"#, "_start"),
        (r#"(module (func (export "_start") (param i32)))"#, "_start"),
        (r#"(component)"#, "wasi:cli/run"),
        (r#"(component (import "custom:thing/x" (func)))"#, "custom:thing/x"),
    ];
    for (wat, named) in wrong {
        let Reason::BadModule { message } = reason(grid.run(&module(wat), &call(&[]))) else { panic!("{wat} ran") };
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn a_long_name_is_told_by_its_beginning() {
    let grid = grid();
    let wat = format!(r#"(module (import "env" "{}" (func)) (func (export "_start")))"#, "ü".repeat(40_000));
    let Reason::BadModule { message } = reason(grid.run(&module(&wat), &call(&[]))) else { panic!("it ran") };
    assert!(message.contains("env::ü") && message.len() <= 2048, "{}", message.len());
}

#[test]
fn a_module_with_another_hash_is_not_compiled() {
    let grid = grid();
    let bytes = wat::parse_str(NOTHING).expect("WAT");
    let (expected, found) = (ProgramHash::of(b"another"), ProgramHash::of(&bytes));
    let wrong = LocalProgram::Wasm { sha256: expected, source: Source::Bytes(bytes.into()) };
    let failure = grid.run(&wrong, &call(&[])).expect_err("another one");
    assert_eq!(failure.reason, Reason::HashMismatch { expected, found });
    assert_eq!(failure.reason.blame(), Blame::Worker);
}

#[test]
fn a_gigabyte_is_refused_before_it_is_read() {
    let grid = grid();
    let path = grid.directory.join("large.wasm");
    File::create(&path).expect("made").set_len(1 << 30).expect("sparse");
    let large = LocalProgram::Wasm { sha256: ProgramHash::of(b""), source: Source::File(path) };
    assert_eq!(reason(grid.run(&large, &call(&[]))), Reason::TooLarge { bytes: 1 << 30, limit: 64 << 20 });
}

#[test]
fn a_module_whose_instances_take_much_memory_that_no_limit_counts_is_refused() {
    let grid = grid();
    let globals = "(global i32 (i32.const 0))".repeat(50_001);
    let elements = "$main ".repeat(50_001);
    for wat in [
        format!("(module {globals} (func (export \"_start\")))"),
        format!("(module (func $main (export \"_start\")) (elem func {elements}))"),
        format!("(component (core module {globals}))"),
    ] {
        let Reason::BadModule { message } = reason(grid.run(&module(&wat), &call(&[]))) else { panic!("it ran") };
        assert!(message.contains("more than 50000 imports, globals and passive elements"), "{message}");
    }
}

/// Blocks with many locals each live across a table of branches: far more work for the compiler than bytes.
fn compile_bomb() -> LocalProgram {
    let locals: String = (0..2000).map(|_| "(local i64)").collect();
    let body: String = (0..12_000)
        .map(|n| {
            format!(
                "(local.set {0} (i64.add (local.get {1}) (local.get {2}))) (br_if 0 (i64.eqz (local.get {0})))",
                n % 2000,
                n * 7 % 2000,
                n * 13 % 2000
            )
        })
        .collect();
    module(&format!("(module (func (export \"_start\") {locals} (block (loop {body}))))"))
}

#[test]
fn a_compile_bomb_meets_its_limit_and_is_remembered() {
    let limit = Duration::from_millis(500);
    let bomb = compile_bomb();
    let grid = in_time(limit + SLACK, || {
        let grid = grid_with(|config| config.compile.wall_time = limit);
        let started_at = Instant::now();
        assert_eq!(reason(grid.run(&bomb, &call(&[]))), Reason::CompileLimit { what: "500ms".to_owned() });
        (grid, started_at.elapsed())
    });
    // Without a source it cannot be compiled again.
    let LocalProgram::Wasm { sha256, .. } = bomb else { panic!("WASM") };
    let gone = LocalProgram::Wasm { sha256, source: Source::File("/nowhere".into()) };
    assert_eq!(reason(grid.run(&gone, &call(&[]))), Reason::CompileLimit { what: "500ms".to_owned() });
    // A busy machine may not compile a module within the limit either, which is remembered of that module alone.
    let since = Instant::now();
    for next in 0.. {
        if grid.run(&hello(&next.to_string()), &call(&[])).is_ok() {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "the next module never compiles");
    }
}

#[test]
fn a_compilers_memory_and_output_have_limits() {
    let starved = grid_with(|config| config.compile.memory_bytes = 8 << 20);
    let Reason::CompileLimit { what } = reason(starved.run(&compile_bomb(), &call(&[]))) else { panic!("it compiled") };
    assert_eq!(what, "8388608 bytes of memory");
    let tight = grid_with(|config| config.compile.compiled_bytes = 100);
    let Reason::CompileLimit { what } = reason(tight.run(&hello("x"), &call(&[]))) else { panic!("it compiled") };
    assert_eq!(what, "100 bytes of compiled code");
}

#[test]
fn a_stopped_compilation_ends_at_once_and_is_not_remembered() {
    let grid = grid();
    let program = compile_bomb();
    let failure = in_time(SLACK, || {
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let compiling = threads.spawn(|| grid.sandbox.prepare(&program, &stop));
            let stopped_at = Instant::now();
            stop.store(true, Ordering::Relaxed);
            (compiling.join().expect("no panic").expect_err("stopped"), stopped_at.elapsed())
        })
    });
    assert_eq!(failure.reason, Reason::Canceled);
}

#[test]
fn a_module_is_compiled_once_for_all_that_ask_and_kept_for_the_next_start() {
    let grid = grid();
    let program = hello("once");
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                assert_eq!(text(&grid.run(&program, &call(&[])).expect("finished").stdout), "once");
            });
        }
    });
    let [file] = &grid.compiled_files()[..] else { panic!("one module is one file") };
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    // Another start has only the file, no source and no compiler.
    let LocalProgram::Wasm { sha256, .. } = program else { panic!("WASM") };
    let kept = LocalProgram::Wasm { sha256, source: Source::File("/nowhere".into()) };
    let next = sandbox::Config { helper: "/nowhere".into(), ..sandbox::Config::new(&grid.directory, 1) };
    let next = sandbox::Sandbox::open(next).expect("a sandbox");
    let ran = next.run(&kept, &call(&[]), &AtomicBool::new(false), &mut |_| {});
    assert_eq!(text(&ran.expect("finished").stdout), "once");
}

#[test]
fn a_directory_that_is_removed_meanwhile_is_made_again() {
    let grid = grid();
    std::fs::remove_dir_all(&grid.directory).expect("removed");
    assert_eq!(text(&grid.run(&hello("again"), &call(&[])).expect("finished").stdout), "again");
    assert_eq!(grid.compiled_files().len(), 1, "it is kept");
}

#[test]
fn a_tampered_cache_file_is_never_loaded() {
    let program = hello("mine");
    type Tamper = fn(&std::path::Path, &std::path::Path);
    let flip: Tamper = |file, _| {
        let mut file = File::options().read(true).write(true).open(file).expect("open");
        let middle = file.metadata().expect("there").len() / 2;
        let mut byte = [0];
        file.seek(SeekFrom::Start(middle)).expect("there");
        file.read_exact(&mut byte).expect("read");
        file.seek(SeekFrom::Start(middle)).expect("there");
        file.write_all(&[byte[0] ^ 1]).expect("written");
    };
    let cut: Tamper = |file, _| {
        let file = File::options().write(true).open(file).expect("open");
        file.set_len(file.metadata().expect("there").len() - 1).expect("cut");
    };
    let swap: Tamper = |file, other| {
        std::fs::copy(other, file).expect("copied");
    };
    let open_up: Tamper = |file, _| {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).expect("set");
    };
    let link: Tamper = |file, other| {
        std::fs::remove_file(file).expect("removed");
        std::os::unix::fs::symlink(other, file).expect("linked");
    };
    let pipe: Tamper = |file, _| {
        std::fs::remove_file(file).expect("removed");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, file, kind, mode, 0).expect("made");
    };
    for tamper in [flip, cut, swap, open_up, link, pipe] {
        let grid = grid();
        grid.run(&program, &call(&[])).expect("finished");
        let file = grid.compiled_files().pop().expect("compiled");
        let other_grid = grid_with(|_| {});
        other_grid.run(&hello("evil"), &call(&[])).expect("finished");
        let other = other_grid.compiled_files().pop().expect("compiled");
        tamper(&file, &other);
        let next =
            sandbox::Config { helper: crate::helpers::TEST_HOST.into(), ..sandbox::Config::new(&grid.directory, 1) };
        let next = sandbox::Sandbox::open(next).expect("a sandbox");
        let ran = next.run(&program, &call(&[]), &AtomicBool::new(false), &mut |_| {});
        assert_eq!(text(&ran.expect("compiled again").stdout), "mine");
    }
}

#[test]
fn the_cache_on_disk_has_a_bound() {
    let grid = grid_with(|config| config.cache_bytes = 1);
    grid.run(&hello("x"), &call(&[])).expect("it runs all the same");
    assert_eq!(grid.compiled_files().len(), 0);
}

#[test]
fn modules_in_memory_take_no_more_than_the_longest_may() {
    let grid = grid_with(|config| config.compile.compiled_bytes = 400 << 10);
    let large = |byte: &str| {
        let data = byte.repeat(220 << 10);
        module(&format!(
            r#"(module (memory (export "memory") 4) (data (i32.const 0) "{data}") (func (export "_start")))"#
        ))
    };
    let (first, second) = (large("x"), large("y"));
    for program in [&first, &second] {
        grid.run(program, &call(&[])).expect("finished");
    }
    for file in grid.compiled_files() {
        std::fs::remove_file(file).expect("removed");
    }
    grid.run(&second, &call(&[])).expect("finished");
    assert_eq!(grid.compiled_files().len(), 0, "it is in memory");
    grid.run(&first, &call(&[])).expect("finished");
    assert_eq!(grid.compiled_files().len(), 1, "it was compiled again");
}
