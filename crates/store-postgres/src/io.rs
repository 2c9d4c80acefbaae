//! The threads of the connections. Callers block or wait on their own threads.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

/// A thread that drives connections and timers.
#[derive(Debug)]
pub(crate) struct Io {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Io {
    pub(crate) fn start(name: &str) -> io::Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok(Arc::new(Self { runtime: Some(runtime), handle }))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Blocks the caller, which may be a thread of a runtime, while this thread drives the connections of the future.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let _entered = self.handle.enter();
        futures_executor::block_on(future)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // The last user may be a thread of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
