//! Runs one lease of a `program` job: its tasks, one after the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use model::{AttemptId, JobId, ProgramHash, ProgramKind, ProgramOutput, ProgramRef, WorkerId};
use sandbox::{Blame, Call, FailedCall, Finished, Input, Limits, LocalProgram, NamedCommand, Reason, Source, Spool};
use serde_json::value::RawValue;
use tempfile::NamedTempFile;
use workloads::{ExecuteError, ProgramInput, ProgramWork, Report, stdin_of};

use super::Programs;
use super::log::TaskLog;
use crate::courier::{FetchError, piece_of};

/// The longest answer with inputs, in bytes: a job's body is not longer, unless its coordinator allows more.
const MAX_INPUT_BYTES: usize = 256 << 20;

/// The end of stderr that stands in an error, so that all of the error fits where it is kept.
const SHOWN_STDERR_BYTES: usize = 600;

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// The worker, the job and the attempt whose tasks run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
}

impl Programs {
    /// Runs the program once for each task.
    pub(crate) fn run(
        &self,
        owner: Owner<'_>,
        work: &RawValue,
        tasks: &Range<u64>,
        stop: &AtomicBool,
    ) -> Result<Report, ExecuteError> {
        let ran = self.run_tasks(owner, work, tasks, stop);
        self.courier.ended(owner.attempt);
        ran
    }

    fn run_tasks(
        &self,
        owner: Owner<'_>,
        work: &RawValue,
        tasks: &Range<u64>,
        stop: &AtomicBool,
    ) -> Result<Report, ExecuteError> {
        let work: ProgramWork = serde_json::from_str(work.get())
            .map_err(|error| ExecuteError::Unsupported(format!("cannot read the work: {error}")))?;
        self.restore_directories().map_err(|error| {
            ExecuteError::Broken(format!("the directory of programs cannot be made again: {error}"))
        })?;
        let (mut results, mut inputs) = (Vec::new(), Vec::new().into_iter());
        for task in tasks.clone() {
            let input = match (&work.range, work.has_inputs) {
                (Some(range), _) => ProgramInput { args: range.args(task).to_vec(), payload: None },
                (None, false) => ProgramInput::default(),
                (None, true) => match inputs.next() {
                    Some(input) => input,
                    None => {
                        inputs = self.inputs(owner, task..tasks.end, stop)?.into_iter();
                        inputs.next().ok_or_else(|| ExecuteError::Broken("a task has no input".to_owned()))?
                    }
                },
            };
            let output = self.run_task(owner, &work, task, input, stop).map_err(|error| match error {
                ExecuteError::Failed(error) if tasks.end - tasks.start > 1 => {
                    ExecuteError::Failed(format!("task {task}: {error}"))
                }
                error @ (ExecuteError::Stopped
                | ExecuteError::Failed(_)
                | ExecuteError::Unsupported(_)
                | ExecuteError::Broken(_)) => error,
            })?;
            results.push(serde_json::value::to_raw_value(&output).expect("text is JSON"));
        }
        Ok(Report { results, ..Report::default() })
    }

    /// Makes the directories again where a cleaner of temporary files has removed them.
    fn restore_directories(&self) -> io::Result<()> {
        if self.cache.directory().is_dir() {
            return Ok(());
        }
        self.sandbox.restore_directory()?;
        self.cache.make_directory()
    }

    fn inputs(
        &self,
        owner: Owner<'_>,
        tasks: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<Vec<ProgramInput>, ExecuteError> {
        let _noted = self.courier.waiting(owner.attempt);
        let query = [("first", tasks.start), ("beyond", tasks.end)];
        let path = ["worker", "jobs", &owner.job.to_string(), "inputs"];
        let fetched = self.courier.fetch(&path, &query, stop, async |mut response| {
            let mut inputs: Vec<u8> = Vec::new();
            while let Some(piece) = piece_of(&mut response).await? {
                if inputs.len() + piece.len() > MAX_INPUT_BYTES {
                    let message = format!("the inputs are longer than {MAX_INPUT_BYTES} bytes");
                    return Err(FetchError::TooLong(message));
                }
                inputs.extend_from_slice(&piece);
            }
            serde_json::from_slice(&inputs)
                .map_err(|error| FetchError::Unreachable(format!("its inputs are not valid: {error}")))
        });
        fetched.map_err(from_fetch)
    }

    fn run_task(
        &self,
        owner: Owner<'_>,
        work: &ProgramWork,
        task: u64,
        input: ProgramInput,
        stop: &AtomicBool,
    ) -> Result<ProgramOutput, ExecuteError> {
        // Held until the program has ended.
        let lines = if work.is_fold { Some(self.outputs(owner, stop)?) } else { None };
        let stdin = match (&lines, input.payload) {
            (Some(lines), _) => Input::File(lines.path().to_owned()),
            (None, Some(payload)) => {
                let bytes = stdin_of(&payload).map_err(|error| ExecuteError::Failed(format!("its payload {error}")))?;
                Input::Bytes(bytes.into())
            }
            (None, None) => Input::Empty,
        };
        let limits = Limits {
            wall_time: Duration::from_secs(work.seconds.into()),
            grace: GRACE,
            memory_bytes: work.limits.memory_bytes.min(self.max_memory_bytes),
            output_bytes: work.limits.output_bytes,
            ..Limits::default()
        };
        let spool = work.hand_in_above.map(|above| Spool { directory: self.cache.directory().to_owned(), above });
        let (args, env, reproducible) = (input.args, work.env.clone(), work.reproducible);
        let mut call = Call { args, stdin, env, limits, reproducible, spool };
        let mut log = TaskLog::new(&self.courier, owner.worker, owner.job, task, owner.attempt);
        let mut on_stderr = |chunk: &[u8]| log.push(chunk);
        let finished = match &work.program {
            ProgramRef::Uploaded(hash) => self.run_uploaded(owner, *hash, &call, stop, &mut on_stderr),
            ProgramRef::Named(name) => {
                let unknown = || ExecuteError::Unsupported(format!("this worker does not bring the program {name}"));
                let named = self.named.get(name).ok_or_else(unknown)?;
                if let Some(variable) = named.refused(&call.env) {
                    let which = format!("the program {name} takes no variable {variable} of a job");
                    return Err(ExecuteError::Failed(which));
                }
                named.limit(&mut call.limits);
                let program = LocalProgram::Named(named.command.clone());
                let ran = self.sandbox.run(&program, &call, stop, &mut on_stderr);
                ran.map_err(|failure| from_named(*failure, &named.command, &call))
            }
        };
        log.end();
        let Finished { stdout, stdout_file, .. } = finished?;
        if let Some(file) = stdout_file {
            let object = self.hand_in(owner, task, file, stop)?;
            return Ok(ProgramOutput::Object { object });
        }
        let output = ProgramOutput::from(stdout);
        if work.is_integer {
            let wrong = |error| ExecuteError::Failed(format!("its stdout cannot be added: {error}"));
            output.integer().map_err(wrong)?;
        }
        Ok(output)
    }

    /// Runs an uploaded program. A file that was changed on disk is fetched once again, and so is a file that was removed to
    /// make room for others before it was opened.
    fn run_uploaded(
        &self,
        owner: Owner<'_>,
        hash: ProgramHash,
        call: &Call,
        stop: &AtomicBool,
        on_stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<Finished, ExecuteError> {
        let sha256 = sandbox::ProgramHash::from(hash.0);
        let mut is_second = false;
        loop {
            let noted = self.courier.waiting(owner.attempt);
            let path = self.cache.get(hash, &self.courier, stop).map_err(from_fetch)?;
            drop(noted);
            let program = match is_wasm(&path) {
                Ok(true) => LocalProgram::Wasm { sha256, source: Source::File(path.clone()) },
                Ok(false) => LocalProgram::Native { sha256, path: path.clone() },
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_second => {
                    is_second = true;
                    continue;
                }
                Err(error) => return Err(ExecuteError::Broken(format!("the program cannot be read: {error}"))),
            };
            match self.sandbox.run(&program, call, stop, on_stderr) {
                Err(failure) if !is_second && is_of_file(&failure.reason, &path, sha256) => {
                    self.cache.drop_file(hash);
                    is_second = true;
                }
                ended => return ended.map_err(|failure| from_failure(*failure)),
            }
        }
    }

    /// The outputs of all other tasks, in a file that is removed when dropped.
    fn outputs(&self, owner: Owner<'_>, stop: &AtomicBool) -> Result<NamedTempFile, ExecuteError> {
        let _noted = self.courier.waiting(owner.attempt);
        let path = ["worker", "jobs", &owner.job.to_string(), "outputs"];
        let fetched = self.courier.fetch(&path, &[], stop, async |mut response| {
            let mut file = self.cache.temporary_file().map_err(FetchError::Local)?;
            let mut bytes = 0;
            while let Some(piece) = piece_of(&mut response).await? {
                bytes += piece.len() as u64;
                let most = self.cache.max_bytes();
                if bytes > most {
                    let what = "the outputs to combine are longer than";
                    return Err(FetchError::TooLong(format!("{what} {most} bytes (DIVVY_PROGRAM_CACHE_BYTES)")));
                }
                file.write_all(&piece).map_err(FetchError::Local)?;
            }
            file.flush().map_err(FetchError::Local)?;
            Ok(file)
        });
        fetched.map_err(from_fetch)
    }
}

/// Whether the file in the cache caused the failure, and not the program.
fn is_of_file(reason: &Reason, path: &Path, sha256: sandbox::ProgramHash) -> bool {
    // A compiler reads the file as its input.
    let may_be_gone = matches!(reason, Reason::NotExecutable { .. } | Reason::Sandbox { .. } | Reason::BadCall { .. });
    // The kind of program is told by the file: a damaged module counts as an executable, and the start of a damaged
    // executable is looked at before its hash. A crash of the machine can leave an empty file.
    let may_be_damaged = matches!(reason, Reason::Unsupported { .. } | Reason::NotExecutable { .. });
    let is_damaged = || !File::open(path).and_then(sandbox::ProgramHash::of_reader).is_ok_and(|found| found == sha256);
    matches!(reason, Reason::HashMismatch { .. }) || may_be_gone && !path.exists() || may_be_damaged && is_damaged()
}

fn is_wasm(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(ProgramKind::MAGIC_BYTES as u64).read_to_end(&mut start)?;
    Ok(ProgramKind::of(&start) == Some(ProgramKind::Wasm))
}

pub(super) fn from_fetch(error: FetchError) -> ExecuteError {
    match error {
        FetchError::Stopped => ExecuteError::Stopped,
        // The program, or the job, is gone: no other worker could fetch it.
        FetchError::Refused { .. } | FetchError::TooLong(_) => ExecuteError::Failed(error.to_string()),
        FetchError::Unreachable(_) | FetchError::Absent(_) | FetchError::Local(_) => {
            ExecuteError::Broken(error.to_string())
        }
    }
}

/// The operator has promised the command, so its absence is this worker's fault, unless the job says where to look for its name.
fn from_named(failure: FailedCall, command: &NamedCommand, call: &Call) -> ExecuteError {
    let is_operators = |file: &str| file.contains('/') || !call.env.contains_key("PATH");
    match (failure.reason, command.argv.first()) {
        (reason @ Reason::NotExecutable { .. }, Some(file)) if is_operators(file) => {
            ExecuteError::Broken(format!("{reason}: {file} (DIVVY_PROGRAMS)"))
        }
        (reason, _) => from_failure(FailedCall { reason, ..failure }),
    }
}

fn from_failure(failure: FailedCall) -> ExecuteError {
    let FailedCall { reason, stderr_tail, .. } = failure;
    // A file that cannot be executed is the client's fault: it must not set workers aside.
    let is_clients = matches!(reason, Reason::NotExecutable { .. });
    match reason.blame() {
        Blame::Stopped => ExecuteError::Stopped,
        // Not `Unsupported`, which costs no attempt: a failure that a program causes must not be retried for ever.
        Blame::Worker if !is_clients => ExecuteError::Broken(reason.to_string()),
        Blame::Worker | Blame::Program => ExecuteError::Failed(with_stderr(&reason, &stderr_tail)),
    }
}

/// The reason with the last lines of stderr.
fn with_stderr(reason: &Reason, stderr: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(SHOWN_STDERR_BYTES)..]);
    match shown.trim() {
        "" => reason.to_string(),
        shown => format!("{reason}; the end of its stderr: {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sandbox::Usage;

    use super::*;

    #[test]
    fn an_error_ends_with_the_end_of_stderr() {
        let stderr = format!("{}the last line\n", "x".repeat(10_000));
        let error = with_stderr(&Reason::Exit { code: 3 }, stderr.as_bytes());
        assert!(error.starts_with("it exited with code 3; the end of its stderr: x"), "{error}");
        assert!(error.ends_with("the last line") && error.len() < 1_000, "{error}");
        assert_eq!(with_stderr(&Reason::Exit { code: 3 }, b" \n"), "it exited with code 3");
    }

    #[test]
    fn a_named_command_that_is_not_there_is_the_workers_fault_and_an_uploaded_file_that_is_none_is_not() {
        let absent = || FailedCall {
            reason: Reason::NotExecutable { message: "No such file or directory".to_owned() },
            stderr_tail: Vec::new(),
            usage: Usage::default(),
        };
        let command = |file: &str| NamedCommand { argv: vec![file.to_owned()], ..NamedCommand::default() };
        let env = BTreeMap::from([("PATH".to_owned(), "/elsewhere".to_owned())]);
        let (own, with_path) = (Call::default(), Call { env, ..Call::default() });
        for (file, call) in [("/opt/render", &own), ("render", &own), ("/opt/render", &with_path)] {
            let ExecuteError::Broken(error) = from_named(absent(), &command(file), call) else {
                panic!("the worker is at fault")
            };
            assert_eq!(error, format!("it cannot be executed: No such file or directory: {file} (DIVVY_PROGRAMS)"));
        }
        assert!(matches!(from_named(absent(), &command("render"), &with_path), ExecuteError::Failed(_)));
        assert!(matches!(from_failure(absent()), ExecuteError::Failed(_)));
    }

    #[test]
    fn a_file_that_was_removed_before_it_was_opened_is_the_reason() {
        let (there, gone) = (Path::new("/"), Path::new("/no/such/file"));
        let hash = sandbox::ProgramHash::of(b"a module");
        let unread = Reason::BadCall { message: "open its input".to_owned() };
        assert!(is_of_file(&unread, gone, hash) && !is_of_file(&unread, there, hash));
        assert!(!is_of_file(&Reason::Exit { code: 1 }, gone, hash));
    }

    #[test]
    fn a_file_that_is_damaged_at_its_start_is_the_reason_why_it_is_refused_or_cannot_be_executed() {
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(b"a module").expect("written");
        let refused = Reason::Unsupported { missing: "native programs are not allowed here".to_owned() };
        let not_executed = Reason::NotExecutable { message: "it is neither an ELF executable nor a script".to_owned() };
        for reason in [refused, not_executed] {
            assert!(!is_of_file(&reason, file.path(), sandbox::ProgramHash::of(b"a module")));
            assert!(is_of_file(&reason, file.path(), sandbox::ProgramHash::of(b"another")));
        }
    }
}
