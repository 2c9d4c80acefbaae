use bytes::Bytes;
use sandbox::{Call, Input, Reason};

use crate::helpers::{call, component, grid, module, program, reason, text};

/// Copies stdin to stdout.
const COPY: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $again
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 60000))
      (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (if (i32.load (i32.const 8))
        (then
          (i32.store (i32.const 4) (i32.load (i32.const 8)))
          (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)) (then (unreachable)))
          (br $again))))))"#;

/// Writes what two calls of a function with a buffer and a length give.
fn lists(sizes: &str, get: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "{sizes}" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "{get}" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (if (call $sizes (i32.const 0) (i32.const 4)) (then (unreachable)))
    (if (call $get (i32.const 100) (i32.const 10000)) (then (unreachable)))
    (i32.store (i32.const 0) (i32.const 10000))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))))"#
    )
}

/// Writes 32 random bytes and two readings of both clocks.
const RANDOM_AND_TIME: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $random (i32.const 96) (i32.const 32)))
    (drop (call $time (i32.const 0) (i64.const 1) (i32.const 128)))
    (drop (call $time (i32.const 1) (i64.const 1) (i32.const 136)))
    (drop (call $time (i32.const 0) (i64.const 1) (i32.const 144)))
    (drop (call $time (i32.const 1) (i64.const 1) (i32.const 152)))
    (i32.store (i32.const 0) (i32.const 96))
    (i32.store (i32.const 4) (i32.const 64))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

#[test]
fn input_arrives_whole_from_memory_and_from_a_file() {
    let grid = grid();
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let file = grid.directory.join("input");
    std::fs::write(&file, &bytes).expect("written");
    let copy = wat::parse_str(COPY).expect("WAT");
    for program in [program(component(&copy)), program(copy)] {
        for stdin in [Input::Bytes(Bytes::from(bytes.clone())), Input::File(file.clone())] {
            let call = Call { stdin, ..call(&[]) };
            assert!(grid.hostile(&program, &call).expect("copied").stdout == bytes);
        }
        assert_eq!(grid.hostile(&program, &call(&[])).expect("copied").stdout, b"");
    }
    let missing = Call { stdin: Input::File("/nowhere".into()), ..call(&[]) };
    assert!(matches!(reason(grid.run(&module(COPY), &missing)), Reason::BadCall { .. }));
}

#[test]
fn arguments_follow_a_name() {
    let grid = grid();
    let listed = grid.run(&module(&lists("args_sizes_get", "args_get")), &call(&["a b", "", "ü"])).expect("finished");
    assert_eq!(text(&listed.stdout), "program\0a b\0\0ü\0");
}

#[test]
fn the_environment_is_the_calls_and_nothing_else() {
    let grid = grid();
    let program = module(&lists("environ_sizes_get", "environ_get"));
    assert_eq!(text(&grid.run(&program, &call(&[])).expect("finished").stdout), "");
    let mut call = call(&[]);
    call.env.insert("COLOUR".to_owned(), "blue".to_owned());
    assert_eq!(text(&grid.run(&program, &call).expect("finished").stdout), "COLOUR=blue\0");
}

#[test]
fn reproducible_runs_see_the_same_time_and_the_same_random_numbers() {
    let grid = grid();
    let bytes = wat::parse_str(RANDOM_AND_TIME).expect("WAT");
    for program in [program(component(&bytes)), program(bytes)] {
        let run = |reproducible| {
            let finished = grid.run(&program, &Call { reproducible, ..call(&[]) }).expect("finished");
            finished.stdout
        };
        let (first, second) = (run(true), run(true));
        assert_eq!(first, second);
        assert_ne!(first[..32], [0; 32]);
        // Clocks go on, so that no program waits for them for ever.
        assert!(first[32..40] != first[48..56] && first[40..48] != first[56..64]);
        assert_ne!(run(false)[..32], run(false)[..32]);
        assert_ne!(run(false)[..32], first[..32]);
    }
}

#[test]
fn no_directory_is_open_and_no_file_can_be_opened() {
    let grid = grid();
    // Descriptors from 3 on would be directories. The answers are 8 (a bad descriptor) each.
    let looks = r#"(module
      (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "/etc/passwd")
      (func (export "_start") (local $fd i32)
        (local.set $fd (i32.const 3))
        (loop $next
          (if (i32.ne (call $prestat (local.get $fd) (i32.const 100)) (i32.const 8)) (then (unreachable)))
          (if (i32.eqz (call $open (local.get $fd) (i32.const 0) (i32.const 0) (i32.const 11) (i32.const 0)
                (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 100)))
            (then (unreachable)))
          (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $fd) (i32.const 1000))))))"#;
    grid.run(&module(looks), &call(&[])).expect("nothing was found");
}

#[test]
fn a_component_that_makes_a_socket_is_told_no() {
    let grid = grid();
    // Exits with 1 unless the socket is refused.
    let asks = r#"(component
      (import "wasi:sockets/network@0.2.0" (instance $network
        (type $code (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
          "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
          "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
          "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
          "permanent-resolver-failure"))
        (export "error-code" (type (eq $code)))
        (type $family (enum "ipv4" "ipv6"))
        (export "ip-address-family" (type (eq $family)))))
      (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
      (alias export $network "error-code" (type $code))
      (alias export $network "ip-address-family" (type $family))
      (alias export $tcp "tcp-socket" (type $socket))
      (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
        (alias outer 1 $code (type $code')) (export "error-code" (type $c (eq $code')))
        (alias outer 1 $family (type $family')) (export "ip-address-family" (type $f (eq $family')))
        (alias outer 1 $socket (type $socket')) (export "tcp-socket" (type $s (eq $socket')))
        (export "create-tcp-socket"
          (func (param "address-family" $f) (result (result (own $s) (error $c)))))))
      (core module $memory (memory (export "memory") 1))
      (core instance $m (instantiate $memory))
      (alias core export $m "memory" (core memory $mem))
      (core func $make (canon lower (func $create "create-tcp-socket") (memory $mem)))
      (core module $main
        (import "" "make" (func $make (param i32 i32)))
        (import "" "memory" (memory 1))
        (func (export "run") (result i32)
          (call $make (i32.const 0) (i32.const 16))
          (i32.eqz (i32.load8_u (i32.const 16)))))
      (core instance $i (instantiate $main
        (with "" (instance (export "make" (func $make)) (export "memory" (memory $mem))))))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $exported (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $exported)))"#;
    grid.run(&module(asks), &call(&[])).expect("refused");
}
