//! A program that runs until its test lets it end: a lease of it is running for as long as the test wants, however slow
//! the machine is.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::{FakeCoordinator, Lease, Worker};

/// The program, which waits for a file in its directory.
const PROGRAM: &str = r#"[program.gate]
command = ["/bin/sh", "-c", "while ! [ -e open ]; do sleep 0.02; done"]
"#;

/// The directory of the program.
pub(crate) struct Gate(TempDir);

impl Gate {
    /// A gate that is closed.
    pub(crate) fn new() -> Self {
        let gate = Self(TempDir::new().expect("a directory"));
        let working_directory = format!("working_directory = {:?}\n", gate.text(""));
        fs::write(gate.place("programs.toml"), PROGRAM.to_owned() + &working_directory).expect("write a file");
        gate
    }

    /// Starts a worker that has the program.
    pub(crate) async fn worker(&self, coordinator: &FakeCoordinator, variables: &[(&str, &str)]) -> Worker {
        let (names, programs) = (self.text("programs.toml"), self.text("programs"));
        let own = [("DIVVY_PROGRAMS", names.as_str()), ("DIVVY_PROGRAM_DIR", programs.as_str())];
        Worker::start(&format!("http://{}", coordinator.address), &[&own[..], variables].concat()).await
    }

    /// A lease of the program.
    pub(crate) fn lease(&self, worker: &Worker) -> Lease {
        let limits = json!({"memory_bytes": 64 << 20, "output_bytes": 0});
        let range = json!({"from": 0, "to": 9, "step": 1});
        worker.lease("program", json!({"program": "gate", "limits": limits, "seconds": 3600, "range": range}))
    }

    /// Lets the program end.
    pub(crate) fn open(&self) {
        fs::write(self.place("open"), "").expect("write a file");
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.place(name).to_str().expect("UTF-8").to_owned()
    }
}
