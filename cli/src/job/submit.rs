//! `divvy job submit`.

use std::path::Path;

use api::JobRequest;
use api::client::Client;
use model::{
    Affinity, Algorithm, DEFAULT_MAX_ATTEMPTS, JobId, JobKind, Labels, NumberRange, Priority, Requirements, Timeout,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use service::{ApiError, parse_json};
use uuid::Uuid;
use workloads::TasksParams;

use crate::arguments::{Format, Method, RangeArguments, Submit, SubmitOptions, Work, WorkCommand, each_once};
use crate::failure::Failure;
use crate::job::wait;
use crate::patience::patiently;
use crate::print::{print_jobs, tell};
use crate::printable::printable;
use crate::source::{named, read_text};

pub(super) async fn run(grid: &Client, format: Format, arguments: &Submit) -> Result<(), Failure> {
    let mut request = match (&arguments.work, &arguments.file) {
        (Some(work), None) => request_for(work)?,
        (None, Some(file)) => parse(&read_text(file)?, file)?,
        (Some(_), Some(_)) => return Err(Failure::Usage("--file says what to compute: name nothing else".to_owned())),
        (None, None) => {
            let kinds: Vec<_> = workloads::KINDS.iter().map(|kind| kind.name().to_string()).collect();
            let kinds = kinds.join(", ");
            return Err(Failure::Usage(format!("name what to compute: {kinds}; or give --file (see --help)")));
        }
    };
    let options = &arguments.options;
    apply(options, &mut request)?;
    let (id, key) = (options.id.map(JobId), key(options));
    let job = patiently(async || grid.submit(&request, id, key.as_deref()).await).await?;
    if let Some(notice) = job.notice.as_ref().filter(|_| job.kind == JobKind::PROGRAM) {
        tell(&format!("note: {}", printable(notice)));
    }
    if !options.wait {
        return print_jobs(format, &[job]);
    }
    wait::announce(&[job.id]);
    wait::run(grid, format, &[job.id]).await
}

/// The client's own key, else one of this submission, so that it is the same job however often it has to be sent.
fn key(options: &SubmitOptions) -> Option<String> {
    let is_named = options.id.is_some() || options.idempotency_key.is_some();
    if is_named { options.idempotency_key.clone() } else { Some(Uuid::new_v4().to_string()) }
}

fn request_for(work: &Work) -> Result<JobRequest, Failure> {
    let work = match work {
        Work::Named(work) => work,
        Work::Described(work) => return plain(work.kind, &work.params),
    };
    Ok(match work {
        WorkCommand::SumOfPrimes(range) => plain(JobKind::SUM_OF_PRIMES, &range_params(range)?)?,
        WorkCommand::CountPrimes(range) => plain(JobKind::COUNT_PRIMES, &range_params(range)?)?,
        WorkCommand::Sleep(sleep) => {
            let (seconds, fail_rate, tasks) = (sleep.seconds, sleep.fail_rate, sleep.tasks);
            let params = json!({"seconds": seconds, "fail_rate": fail_rate, "tasks": tasks});
            plain(JobKind::SLEEP, &params)?
        }
        WorkCommand::Tasks(tasks) => {
            let list = payloads(&read_text(&tasks.file)?)?;
            plain(JobKind::TASKS, &TasksParams { list: list.into() })?
        }
        WorkCommand::Program(program) => plain(JobKind::PROGRAM, &super::program::params(program)?)?,
    })
}

/// Parameters of a range. What is left to the default is left out: grids of earlier releases do not know it.
fn range_params(range: &RangeArguments) -> Result<Value, Failure> {
    let &RangeArguments { a, b, method: Method { algorithm, verify } } = range;
    NumberRange::new(a, b).map_err(|_| Failure::Usage(format!("A must not be above B, but {a} is above {b}")))?;
    let mut params = json!({"a": a, "b": b});
    if algorithm != Algorithm::Auto {
        params["algorithm"] = json!(algorithm);
    }
    if verify {
        params["verify"] = json!(true);
    }
    Ok(params)
}

/// A job with nothing but its work.
fn plain(kind: JobKind, params: &impl Serialize) -> Result<JobRequest, Failure> {
    Ok(JobRequest {
        kind,
        params: to_raw_value(params).map_err(anyhow::Error::from)?,
        priority: Priority::default(),
        tags: Labels::new(),
        affinity: Affinity::default(),
        requires: Requirements::default(),
        max_attempts: DEFAULT_MAX_ATTEMPTS,
        timeout: Timeout::default(),
        output: None,
        verify: None,
    })
}

fn apply(options: &SubmitOptions, request: &mut JobRequest) -> Result<(), Failure> {
    request.tags.extend(each_once("--tag", &options.tag)?);
    request.affinity.labels.extend(each_once("--affinity-label", &options.affinity_label)?);
    request.requires.labels.extend(each_once("--require", &options.require)?);
    set(&mut request.priority, options.priority);
    set(&mut request.max_attempts, options.max_attempts);
    set(&mut request.affinity.key, options.affinity_key.clone().map(Some));
    set(&mut request.requires.cpus, options.require_cpus.map(Some));
    set(&mut request.requires.memory_bytes, options.require_memory.map(Some));
    set(&mut request.timeout.task_seconds, options.task_timeout.map(Some));
    set(&mut request.timeout.job_seconds, options.job_timeout.map(Some));
    set(&mut request.verify, options.verify_share.map(Some));
    set(&mut request.output, options.output_name.clone().map(Some));
    Ok(())
}

fn set<T>(field: &mut T, option: Option<T>) {
    if let Some(value) = option {
        *field = value;
    }
}

fn parse(text: &str, path: &Path) -> Result<JobRequest, Failure> {
    parse_json(text.as_bytes()).map_err(|error| {
        let message = if let ApiError::InvalidBody { message, .. } = error { message } else { error.to_string() };
        Failure::Usage(format!("{} is no job: {message}", named(path)))
    })
}

/// The payloads of a JSON array, else of one JSON value a line.
pub(super) fn payloads(text: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    if let Ok(list) = serde_json::from_str(text) {
        return Ok(list);
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let parsed = lines.map(|(line, number)| {
        let payload: serde_json::Result<Box<RawValue>> = serde_json::from_str(line);
        payload
            .map_err(|error| Failure::Usage(format!("line {number} of the tasks: {}", model::json_error("it", &error))))
    });
    let list: Vec<_> = parsed.collect::<Result<_, _>>()?;
    if list.is_empty() {
        return Err(Failure::Usage("there are no tasks: give one JSON value a line, or a JSON array".to_owned()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        payloads(text).expect("payloads").iter().map(|payload| payload.get().to_owned()).collect()
    }

    #[test]
    fn tasks_are_lines_or_one_array_and_stay_as_they_are() {
        assert_eq!(texts("{\"n\": 1.0}\n\n\"two\"\r\n[3]\n"), [r#"{"n": 1.0}"#, "\"two\"", "[3]"]);
        assert_eq!(texts("[ {\"n\": 1},\n 2 ]"), [r#"{"n": 1}"#, "2"]);
        assert_eq!(texts("[1]\n[2]"), ["[1]", "[2]"]);
    }

    #[test]
    fn line_that_is_no_json_is_named() {
        let Err(Failure::Usage(message)) = payloads("1\n{x}\n3") else { panic!("refused") };
        assert!(message.starts_with("line 2 of the tasks: it is no JSON: "), "{message}");
        assert!(payloads("\n \n").is_err());
    }

    #[test]
    fn options_win_over_the_file_and_tags_are_added() {
        let file =
            r#"{"kind":"count-primes","params":{"a":1,"b":9},"priority":2,"tags":{"a":"1","b":"2"},"output":"x"}"#;
        let mut request = parse(file, Path::new("job.json")).expect("a job");
        let tag = vec![("b".to_owned(), "3".to_owned())];
        let options = SubmitOptions { tag, priority: Priority::try_from(9).ok(), ..SubmitOptions::default() };
        apply(&options, &mut request).expect("each key once");
        let parsed = request.parse(model::DEFAULT_CHUNK_SIZE).expect("valid").options;
        assert_eq!(parsed.tags, Labels::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "3".to_owned())]));
        assert_eq!((parsed.priority.get(), parsed.output.as_deref()), (9, Some("x")));
    }

    #[test]
    fn file_with_an_unknown_field_is_refused() {
        let Err(Failure::Usage(message)) = parse(r#"{"kind":"sleep","params":{},"prio":1}"#, Path::new("job.json"))
        else {
            panic!("refused")
        };
        assert!(
            message.starts_with("job.json is no job: prio is no field here: this object takes kind, "),
            "{message}"
        );
    }

    #[test]
    fn file_that_is_an_array_or_has_a_wrong_value_is_refused_in_plain_words() {
        for (file, told) in [
            (r#"["sleep", {"seconds": 1}]"#, "it must be an object, but is an array (line 1"),
            (r#"{"kind":"sleep","params":{},"timeout":[5]}"#, "timeout must be an object, but is an array (line 1"),
            (
                r#"{"kind":"sleep","params":{},"max_attempts":0}"#,
                "max_attempts must be a whole number from 1 to 100, but is 0",
            ),
            ("{", "it is no JSON: it ends within an object (line 1"),
            (r#"{"kind":"sleep","params":{}} x"#, "it is no JSON: something follows its end (line 1"),
        ] {
            let Err(Failure::Usage(message)) = parse(file, Path::new("job.json")) else { panic!("{file}") };
            assert!(message.starts_with("job.json is no job: ") && message.contains(told), "{file}: {message}");
        }
        let Err(Failure::Usage(message)) = parse("[1]", Path::new("-")) else { panic!("an array is no job") };
        assert!(message.starts_with("stdin is no job: "), "{message}");
    }
}
