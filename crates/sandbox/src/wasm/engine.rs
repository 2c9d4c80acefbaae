//! The engine, the same in the host and in its compilers, and the clock of its epochs.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine};

/// Interval at which a computing program's time and stop flag are looked at.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// A guest's calls may be nested so deep.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The stack that a guest runs on, with the host's functions that it calls.
const STACK_BYTES: usize = 1 << 20;

/// An engine that can be interrupted, without threads and garbage collection.
pub(super) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        .concurrency_support(false)
        // Results are the same on every processor.
        .relaxed_simd_deterministic(true);
    Engine::new(&config)
}

/// A hash over all that compiled code depends on: the version and the settings of the engine, and the processor.
pub(super) fn compatibility(engine: &Engine) -> [u8; 32] {
    struct Digested(Sha256);
    impl Hasher for Digested {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Digested(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

/// Advances the engine's epoch while something runs.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    running: Mutex<usize>,
    changed: Condvar,
}

/// Keeps the ticker going.
pub(super) struct Ticking<'a>(&'a Ticker);

impl Ticker {
    /// Starts its thread, which ends some time after the ticker.
    pub(super) fn start(engine: &Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self::default());
        let (engine, weak) = (engine.weak(), Arc::downgrade(&ticker));
        let advance = move || {
            while let Some(is_needed) = wait_for_work(&weak) {
                if is_needed {
                    thread::sleep(TICK);
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            }
        };
        thread::Builder::new().name("wasm-epochs".to_owned()).spawn(advance)?;
        Ok(ticker)
    }

    pub(super) fn tick(&self) -> Ticking<'_> {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
        Ticking(self)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// Waits until something runs, or for a while; nothing when the ticker is gone.
fn wait_for_work(ticker: &Weak<Ticker>) -> Option<bool> {
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let ticker = ticker.upgrade()?;
    let running = ticker.running.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ticker.changed.wait_timeout_while(running, LONGEST_WAIT, |running| *running == 0);
    let (running, _) = waited.unwrap_or_else(PoisonError::into_inner);
    Some(*running > 0)
}
