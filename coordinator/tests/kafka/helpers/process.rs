//! Waiting for conditions, and processes that do not outlive this one.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for any condition without a limit of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The value of `probe`, once it returns one.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        let is_late = since.elapsed() > PATIENCE;
        if let Some(found) = probe() {
            return found;
        }
        assert!(!is_late, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a process that ends with this one, however this one ends.
pub(crate) fn spawn(mut command: Command) -> Child {
    let program = command.get_program().to_owned();
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    tied.stdin(Stdio::null());
    command = tied;
    let (sender, receiver) = mpsc::channel();
    // The signal comes when the thread ends that started the process: this one never does.
    thread::spawn(move || {
        let _ = sender.send(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn());
        loop {
            thread::park();
        }
    });
    let started = receiver.recv().expect("the thread answers");
    started.unwrap_or_else(|error| panic!("start {program:?} by setpriv: {error}"))
}
