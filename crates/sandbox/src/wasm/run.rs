//! One task of a WASI program, on the caller's thread: a new instance, driven until it ends or is ended.

use std::cell::OnceCell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, Trap, WasmBacktrace};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::clock::make_reproducible;
use super::engine::TICK;
use super::limiter::MemoryLimiter;
use super::load::Loaded;
use super::shortage;
use super::streams::{FileInput, Log, Stdout, Stream};
use crate::failure::{FailedCall, Finished, Reason, Usage, is_of_machine};
use crate::program::{Call, Input, STDERR_TAIL_BYTES};
use crate::tail::Tail;

/// Largest number of bytes that a guest may have the host copy in one call.
const HOSTCALL_BYTES: usize = 1 << 20;
const MOST_RANDOM_BYTES: u64 = 1 << 20;
/// Streams, pollables and the like.
const MOST_RESOURCES: usize = 1000;
/// The program's name in `argv[0]`.
const NAME: &str = "program";
const MESSAGE_BYTES: usize = 1024;
/// Largest number of named functions of a trap's backtrace.
const MOST_FRAMES: usize = 5;

/// The data of a store beside the engine's own.
pub(crate) struct Guest<W> {
    wasi: W,
    memory: MemoryLimiter,
}

pub(crate) type Preview1 = WasiP1Ctx;

pub(crate) struct Preview2 {
    context: WasiCtx,
    table: ResourceTable,
}

impl Guest<Preview1> {
    pub(super) fn preview1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

impl WasiView for Guest<Preview2> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi.context, table: &mut self.wasi.table }
    }
}

/// The end of a guest.
enum End {
    /// The guest ended by itself, or with an error of the engine.
    Own(wasmtime::Result<()>),
    TimeLimit,
    Stopped,
}

/// Runs a program to its end.
pub(super) fn run(
    engine: &Engine,
    loaded: &Loaded,
    call: &Call,
    stop: &AtomicBool,
    on_stderr: &mut dyn FnMut(&[u8]),
) -> Result<Finished, Box<FailedCall>> {
    let (stdout, log) = (Stdout::new(call.limits.output_bytes, call.spool.clone()), Log::default());
    let context = context(call, &stdout, &log)?;
    let mut tail = Tail::new(STDERR_TAIL_BYTES);
    let mut on_log = |chunk: &[u8]| {
        tail.push(chunk);
        on_stderr(chunk);
    };
    let (started_at, cpu_before) = (Instant::now(), thread_cpu_time());
    let mut drive = Drive { stop, limit: call.limits.wall_time, started_at, log, on_log: &mut on_log };
    let limiter = |is_component| MemoryLimiter::new(call.limits.memory_bytes, is_component);
    let (end, memory) = match loaded {
        Loaded::Module(module) => {
            let mut context = context;
            let mut wasi = context.build_p1();
            wasi.ctx().table.set_max_capacity(MOST_RESOURCES);
            let mut store = store(engine, wasi, limiter(false));
            let end = drive.until_end(async {
                let instance = module.instantiate_async(&mut store).await?;
                instance.get_typed_func::<(), ()>(&mut store, "_start")?.call_async(&mut store, ()).await
            })?;
            (end, store.into_data().memory)
        }
        Loaded::Component(component) => {
            let mut context = context;
            let mut table = ResourceTable::new();
            table.set_max_capacity(MOST_RESOURCES);
            let mut store = store(engine, Preview2 { context: context.build(), table }, limiter(true));
            store.set_hostcall_fuel(HOSTCALL_BYTES);
            let end = drive.until_end(async {
                let command = component.instantiate_async(&mut store).await?;
                let succeeded = command.wasi_cli_run().call_run(&mut store).await?;
                // The interface has no number for a failure.
                succeeded.map_err(|()| I32Exit(1).into())
            })?;
            (end, store.into_data().memory)
        }
    };
    let usage = Usage {
        wall_time: started_at.elapsed(),
        cpu_time: thread_cpu_time().saturating_sub(cpu_before),
        peak_memory_bytes: memory.peak_bytes(),
    };
    let (output, refused) = stdout.take();
    let stderr_tail = tail.into_bytes();
    let reason = match end {
        End::Stopped => Some(Reason::Canceled),
        End::TimeLimit => Some(Reason::TimeLimit { limit: call.limits.wall_time }),
        End::Own(_) if memory.exceeded() => Some(Reason::MemoryLimit { limit: call.limits.memory_bytes }),
        End::Own(result) => refused.or_else(|| result.err().and_then(reason_of)),
    };
    match reason {
        None => {
            let (stdout, stdout_file) = output.into_parts();
            Ok(Finished { stdout, stdout_file, stderr_tail, usage })
        }
        Some(reason) => Err(Box::new(FailedCall { reason, stderr_tail, usage })),
    }
}

/// Arguments, environment and streams; no directory and no network.
fn context(call: &Call, stdout: &Stdout, log: &Log) -> Result<WasiCtxBuilder, Reason> {
    let mut builder = WasiCtxBuilder::new();
    builder.arg(NAME).args(&call.args).stdout(Stream(stdout.clone())).stderr(Stream(log.clone()));
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(MOST_RANDOM_BYTES);
    for (name, value) in &call.env {
        builder.env(name, value);
    }
    match &call.stdin {
        Input::Empty => {}
        Input::Bytes(bytes) => {
            builder.stdin(MemoryInputPipe::new(bytes.clone()));
        }
        Input::File(path) => {
            let opened = File::open(path);
            let file = opened.map_err(|error| {
                if is_of_machine(&error) {
                    return Reason::sandbox("open its input", error);
                }
                Reason::BadCall { message: format!("open its input: {error}") }
            })?;
            builder.stdin(FileInput::new(file));
        }
    }
    if call.reproducible {
        make_reproducible(&mut builder);
    }
    Ok(builder)
}

fn store<W: Send + 'static>(engine: &Engine, wasi: W, memory: MemoryLimiter) -> Store<Guest<W>> {
    let mut store = Store::new(engine, Guest { wasi, memory });
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Looks after a guest each time it yields or waits: at least once in a tick.
struct Drive<'a> {
    stop: &'a AtomicBool,
    limit: Duration,
    started_at: Instant,
    log: Log,
    on_log: &'a mut dyn FnMut(&[u8]),
}

impl Drive<'_> {
    /// Drives a guest on a runtime of this thread, which sleeps while the guest does.
    fn until_end(&mut self, guest: impl Future<Output = wasmtime::Result<()>>) -> Result<End, Reason> {
        thread_local! {
            static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
        }
        RUNTIME.with(|runtime| {
            let runtime = match runtime.get() {
                Some(runtime) => runtime,
                None => {
                    let made = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    let made = made.map_err(|error| Reason::sandbox("start a runtime", error))?;
                    runtime.get_or_init(|| made)
                }
            };
            let mut guest = pin!(guest);
            let mut nap = None;
            let end = runtime.block_on(poll_fn(|context| self.poll(guest.as_mut(), &mut nap, context)));
            self.hand_over();
            Ok(end)
        })
    }

    fn poll(
        &mut self,
        guest: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        nap: &mut Option<Pin<Box<tokio::time::Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<End> {
        if self.stop.load(Ordering::Relaxed) {
            return Poll::Ready(End::Stopped);
        }
        if self.started_at.elapsed() >= self.limit {
            return Poll::Ready(End::TimeLimit);
        }
        if let Poll::Ready(result) = guest.poll(context) {
            return Poll::Ready(End::Own(result));
        }
        self.hand_over();
        // A guest that waits wakes nobody before it is ready; the nap does.
        let sleep = nap.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
        while sleep.as_mut().poll(context).is_ready() {
            sleep.as_mut().reset(tokio::time::Instant::now() + TICK);
        }
        Poll::Pending
    }

    fn hand_over(&mut self) {
        let chunk = self.log.take();
        if !chunk.is_empty() {
            (self.on_log)(&chunk);
        }
    }
}

/// The beginning of wasmtime's error for an exit code above 125. The error does not contain the code.
const UNKNOWN_CODE: &str = "exit with invalid exit status";

/// The reason why a guest that ended by itself has no result; `None` if it exited with 0.
fn reason_of(error: wasmtime::Error) -> Option<Reason> {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return (*code != 0).then_some(Reason::Exit { code: *code });
    }
    if let Some(reason) = shortage(&error) {
        return Some(reason);
    }
    if error.root_cause().to_string().starts_with(UNKNOWN_CODE) {
        return Some(Reason::ExitUnknown);
    }
    let what = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let names: Vec<_> = frames.iter().filter_map(|frame| frame.func_name()).take(MOST_FRAMES).collect();
    let place = if names.is_empty() { String::new() } else { format!(" in {}", names.join(" < ")) };
    let mut message = format!("{what}{place}");
    if message.len() > MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    }
    Some(Reason::Trap { message })
}

fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
