//! Overhead of the sandbox for one call: a warm WASI call beside a bare instance of the same module, and a native program
//! beside a bare `posix_spawn` of the same one, taken in turns. Prints Markdown, with the goals and whether they are met.
//!
//! `cargo run --release -p sandbox --example overhead [CALLS]`

use std::error::Error;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use sandbox::{Call, Config, LocalProgram, NamedCommand, ProgramHash, Sandbox, Source};
use wasmtime::{Engine, Linker, Module, Store};

const EMPTY: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
const TRUE: &str = "/usr/bin/true";

/// The largest allowed quantile of the calls' times.
#[derive(Clone, Copy)]
struct Goal {
    name: &'static str,
    quantile: f64,
    micros: f64,
}

const WASI_GOAL: Goal = Goal { name: "p99 ≤ 50 µs", quantile: 0.99, micros: 50.0 };
const NATIVE_GOAL: Goal = Goal { name: "p50 ≤ 1.5 ms", quantile: 0.5, micros: 1_500.0 };

fn main() -> Result<(), Box<dyn Error>> {
    sandbox::run_child_if_asked();
    let calls: usize = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let config = Config { allow_native: true, ..Config::new(directory.path().join("sandbox"), 1) };
    let sandbox = Sandbox::open(config)?;
    println!("| call | calls | p50 µs | p99 µs | goal | met |\n|---|---|---|---|---|---|");
    wasi(&sandbox, calls)?;
    native(&sandbox, calls.div_ceil(5))
}

fn wasi(sandbox: &Sandbox, calls: usize) -> Result<(), Box<dyn Error>> {
    let bytes = wat::parse_str(EMPTY)?;
    let engine = Engine::default();
    let module = Linker::<()>::new(&engine).instantiate_pre(&Module::new(&engine, &bytes)?)?;
    let program = LocalProgram::Wasm { sha256: ProgramHash::of(&bytes), source: Source::Bytes(bytes.into()) };
    let bare = || -> Result<(), Box<dyn Error>> {
        let mut store = Store::new(&engine, ());
        let instance = module.instantiate(&mut store)?;
        Ok(instance.get_typed_func::<(), ()>(&mut store, "_start")?.call(&mut store, ())?)
    };
    compare("bare instance", bare, ("WASI call", Some(WASI_GOAL)), || run(sandbox, &program), calls)
}

fn native(sandbox: &Sandbox, calls: usize) -> Result<(), Box<dyn Error>> {
    let sha256 = ProgramHash::of_reader(std::fs::File::open(TRUE)?)?;
    let program = LocalProgram::Native { sha256, path: TRUE.into() };
    let named = LocalProgram::Named(NamedCommand { argv: vec![TRUE.to_owned()], ..NamedCommand::default() });
    // Without hooks the standard library uses `posix_spawn`.
    let bare = || -> Result<(), Box<dyn Error>> {
        Command::new(TRUE).env_clear().status()?;
        Ok(())
    };
    compare("posix_spawn", bare, ("native program", Some(NATIVE_GOAL)), || run(sandbox, &program), calls)?;
    compare("posix_spawn", bare, ("named command", None), || run(sandbox, &named), calls)
}

fn run(sandbox: &Sandbox, program: &LocalProgram) -> Result<(), Box<dyn Error>> {
    sandbox.run(program, &Call::default(), &AtomicBool::new(false), &mut |_| {})?;
    Ok(())
}

/// Runs both in turns, so that what else the machine does falls on both.
fn compare(
    bare_name: &str,
    bare: impl Fn() -> Result<(), Box<dyn Error>>,
    (name, goal): (&str, Option<Goal>),
    call: impl Fn() -> Result<(), Box<dyn Error>>,
    calls: usize,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..calls.min(100) {
        bare()?;
        call()?;
    }
    let (mut bare_times, mut times) = (Vec::new(), Vec::new());
    for _ in 0..calls {
        bare_times.push(time(&bare)?);
        times.push(time(&call)?);
    }
    report(bare_name, bare_times, None);
    report(name, times, goal);
    Ok(())
}

fn time(call: &impl Fn() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let started_at = Instant::now();
    call()?;
    Ok(started_at.elapsed())
}

fn report(name: &str, mut times: Vec<Duration>, goal: Option<Goal>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    let verdict = goal.map_or("– | –".to_owned(), |Goal { name, quantile, micros }| {
        format!("{name} | {}", if at(quantile) <= micros { "yes" } else { "**no**" })
    });
    println!("| {name} | {} | {:.1} | {:.1} | {verdict} |", times.len(), at(0.5), at(0.99));
}
