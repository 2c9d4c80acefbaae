use serde_json::json;

use super::*;

const CHUNK: NonZeroU64 = NonZeroU64::MIN;

fn parse(params: serde_json::Value) -> Result<Parsed, InvalidJob> {
    Program.parse(&raw(params.to_string()), CHUNK)
}

fn work(parsed: &Parsed, tasks: &Range<u64>) -> ProgramWork {
    serde_json::from_str(parsed.workload.lease(tasks, tasks.end).get()).expect("work")
}

#[test]
fn the_documents_range_is_five_tasks_of_two_arguments_and_no_list() {
    let range = json!({"from": 0, "to": 500_000_000, "step": 100_000_000});
    let parsed = parse(json!({"program": "sums", "range": range, "combine": "sum"})).expect("valid");
    assert_eq!((parsed.workload.tasks(), parsed.payloads.len()), (5, 0));
    let work = work(&parsed, &(4..5));
    let range = work.range.expect("a range");
    assert_eq!(range.args(4), ["400000000", "500000000"].map(str::to_owned));
    assert!(work.is_integer && !work.has_inputs && !work.is_fold);
    let restored = Program.restore(&parsed.stored, CHUNK).expect("restored");
    assert_eq!(restored.tasks(), 5);
}

#[test]
fn a_range_that_does_not_divide_has_a_shorter_last_part() {
    let range = ProgramRange { from: 10, to: 25, step: NonZeroU64::new(10).expect("not 0") };
    assert_eq!((range.parts(), range.args(1)), (2, ["20", "25"].map(str::to_owned)));
    let range = ProgramRange { from: 0, to: u64::MAX, step: NonZeroU64::new(u64::MAX - 1).expect("not 0") };
    assert_eq!(range.args(1), [(u64::MAX - 1).to_string(), u64::MAX.to_string()]);
}

#[test]
fn a_fold_is_a_last_task_with_its_own_program() {
    let params = json!({"program": "map", "args": [["a"], ["b"]], "combine": {"program": "reduce"}});
    let parsed = parse(params).expect("valid");
    assert_eq!((parsed.workload.tasks(), parsed.payloads.len()), (3, 3));
    assert!(parsed.workload.profile().last_task_waits);
    let (first, last) = (work(&parsed, &(0..1)), work(&parsed, &(2..3)));
    assert_eq!((first.program.to_string(), first.has_inputs, first.is_fold), ("map".to_owned(), true, false));
    assert_eq!((last.program.to_string(), last.has_inputs, last.is_fold), ("reduce".to_owned(), false, true));
    assert_eq!(parsed.workload.composition(), Composition::LastTask);
}

#[test]
fn a_fold_over_a_range_gets_no_arguments_of_it() {
    let range = json!({"from": 0, "to": 20, "step": 10});
    let params = json!({"program": "map", "range": range, "combine": {"program": "reduce"}});
    let parsed = parse(params).expect("valid");
    let (part, fold) = (work(&parsed, &(1..2)), work(&parsed, &(2..3)));
    assert_eq!((part.range.is_some(), part.is_fold), (true, false));
    assert_eq!((fold.range, fold.has_inputs, fold.is_fold), (None, false, true));
}

#[test]
fn a_job_requires_workers_that_bring_its_named_programs_and_has_a_time_limit() {
    let params = json!({"program": "map", "args": [[]], "combine": {"program": "reduce"}});
    let mut options = JobOptions::default();
    let parsed = Program.complete(parse(params).expect("valid"), &mut options).expect("complete");
    let labels: Vec<_> = options.requires.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["divvy.program.map", "divvy.program.reduce"]);
    assert_eq!(options.timeout.task_seconds.map(std::num::NonZeroU32::get), Some(DEFAULT_TASK_SECONDS));
    assert_eq!(work(&parsed, &(0..1)).seconds, DEFAULT_TASK_SECONDS);
}

#[test]
fn uploaded_programs_may_be_reproducible() {
    let params = json!({"program": "ab".repeat(32), "args": [[]], "reproducible": true});
    assert!(work(&parse(params).expect("valid"), &(0..1)).reproducible);
}

#[test]
fn the_uploaded_programs_of_stored_parameters_are_found() {
    let (one, other) = ("ab".repeat(32), "cd".repeat(32));
    let params = json!({"program": one, "args": [[]], "combine": {"program": other}});
    let parsed = parse(params).expect("valid");
    let found: Vec<_> =
        model::uploaded_programs(JobKind::PROGRAM, parsed.stored.get()).iter().map(ToString::to_string).collect();
    assert_eq!(found, [one, other]);
    assert!(model::uploaded_programs(JobKind::TASKS, parsed.stored.get()).is_empty());
}

#[test]
fn long_outputs_are_objects_unless_they_are_added() {
    let of = |combine: &str| parse(json!({"program": "p", "args": [[]], "combine": combine})).expect("valid");
    let (joined, added) = (of("concat"), of("sum"));
    let above = |parsed: &Parsed| work(parsed, &(0..1)).hand_in_above;
    assert_eq!((above(&joined), above(&added)), (Some(65_536), None));
    let attempt = "00000000-0000-0000-0000-000000000007";
    let object = json!({"object": {"attempt": attempt, "bytes": 70_000, "sha256": "ab".repeat(32), "text": true}});
    let report = || Report { results: vec![raw(object.to_string())], ..Report::default() };
    assert!(joined.workload.accept(&(0..1), report()).is_ok());
    assert!(added.workload.accept(&(0..1), report()).is_err());
}

#[test]
fn outputs_that_are_added_have_a_bound_of_their_own_since_they_stay_in_memory() {
    let limits = json!({"output_bytes": 1_u64 << 30});
    let of = |combine: &str| parse(json!({"program": "p", "args": [[]], "combine": combine, "limits": limits}));
    let most = |combine: &str| work(&of(combine).expect("valid"), &(0..1)).limits.output_bytes;
    assert_eq!((most("concat"), most("sum")), (1 << 30, 65_536));
}

#[test]
fn the_environment_of_a_named_program_cannot_make_its_interpreter_run_something_else() {
    let (uploaded, named) = ("ab".repeat(32), "render".to_owned());
    let with = |program: &str, fold: Option<&str>, name: &str| {
        let combine = fold.map_or_else(|| json!("none"), |fold| json!({"program": fold}));
        parse(json!({"program": program, "args": [[]], "combine": combine, "env": {name: "1"}})).map(|_| ())
    };
    let names = ["LD_PRELOAD", "PATH", "BASH_ENV", "PYTHONINSPECT", "PERL5OPT", "NODE_OPTIONS"];
    let others = ["R_PROFILE_USER", "R_ENVIRON_USER", "LUA_INIT_5_4", "JULIA_LOAD_PATH", "GLIBC_TUNABLES", "HOME"];
    let libraries = ["OPENSSL_CONF", "OMP_TOOL_LIBRARIES", "HDF5_PLUGIN_PATH", "GIT_SSH_COMMAND", "PYTHON_PRESITE"];
    for name in names.into_iter().chain(others).chain(libraries) {
        for (program, fold) in [(&named, None), (&uploaded, Some(named.as_str()))] {
            let error = with(program, fold, name).expect_err(name);
            assert!(error.message.contains(name), "{}", error.message);
        }
        assert!(with(&uploaded, None, name).is_ok(), "it is caged, or has no loader");
    }
    for name in ["PYTHONUNBUFFERED", "PYTHONHASHSEED", "JULIA_NUM_THREADS", "OMP_NUM_THREADS", "INPUT_PATH", "SCENE"] {
        assert!(with(&named, None, name).is_ok(), "{name}");
    }
}

#[test]
fn an_environment_fits_into_every_lease_or_is_refused() {
    let with = |value: &str| parse(json!({"program": "p", "args": [[]], "env": {"A": value}}));
    // A control character is six bytes of JSON; a worker takes a lease of a MiB.
    let longest = with(&"\u{1}".repeat((64 << 10) - 1)).expect("valid");
    assert!(longest.workload.lease(&(0..1), 1).get().len() < 512 << 10);
    let message = with(&"x".repeat(64 << 10)).map(|_| ()).expect_err("too long").message;
    assert!(message.contains("env has at most 65536 bytes"), "{message}");
}

#[test]
fn a_payload_is_text_bytes_or_the_json_itself() {
    let read = |json: &str| stdin_of(&raw(json.to_owned()));
    assert_eq!(read("\"a\\n\"").expect("text"), b"a\n");
    assert_eq!(read(r#"{"base64":"/w=="}"#).expect("bytes"), b"\xff");
    assert_eq!(read(r#"{"base64":"!"}"#), Err(InvalidBase64));
    let object = r#"{"object":{"attempt":"00000000-0000-0000-0000-000000000007","bytes":1,"sha256":"","text":true}}"#;
    let others = [r#"{"base64": "/w==", "x": 1}"#, r#"{"base64":5}"#, r#"["/w=="]"#, object];
    for json in [r#"{"a": [1, 2]}"#, "7", "null"].into_iter().chain(others) {
        assert_eq!(read(json).expect("JSON"), json.as_bytes());
    }
}

#[test]
fn a_payload_null_is_not_the_lack_of_a_payload() {
    let parsed = parse(json!({"program": "p", "payloads": [null]})).expect("valid");
    let input: ProgramInput = serde_json::from_str(parsed.payloads.get(0).expect("an input")).expect("an input");
    assert_eq!(input.payload.expect("a payload").get(), "null");
    let parsed = parse(json!({"program": "p", "args": [["a"]]})).expect("valid");
    let input: ProgramInput = serde_json::from_str(parsed.payloads.get(0).expect("an input")).expect("an input");
    assert!(input.payload.is_none());
}

#[test]
fn parameters_out_of_bounds_are_refused() {
    for wrong in [
        json!({"program": "p"}),
        json!({"program": "P", "args": [[]]}),
        json!({"program": "p", "args": []}),
        json!({"program": "p", "args": [["\u{0}"]]}),
        json!({"program": "p", "args": [[]], "range": {"from": 0, "to": 1, "step": 1}}),
        json!({"program": "p", "range": {"from": 1, "to": 1, "step": 1}}),
        json!({"program": "p", "range": {"from": 0, "to": 1, "step": 0}}),
        json!({"program": "p", "range": {"from": 0, "to": u64::MAX, "step": 1}}),
        json!({"program": "p", "args": [[], []], "payloads": [1]}),
        json!({"program": "p", "payloads": ["a", {"base64": "!"}]}),
        json!({"program": "p", "payloads": [{"base64": "_w"}]}),
        json!({"program": "p", "args": [[]], "env": {"a=b": "c"}}),
        json!({"program": "p", "args": [[]], "env": {"a": "x".repeat(65_536)}}),
        json!({"program": "p", "args": [[]], "tasks_per_lease": 1001}),
        json!({"program": "p", "args": [[]], "limits": {"output_bytes": (64_u64 << 30) + 1}}),
        json!({"program": "p", "args": [[]], "limits": {"memory_bytes": 1}}),
        json!({"program": "p", "args": [[]], "combine": "max"}),
        json!({"program": "p", "args": [[]], "reproducible": true}),
        json!({"program": "ab".repeat(32), "args": [[]], "combine": {"program": "p"}, "reproducible": true}),
        json!(["p", [[]]]),
        json!({"program": "p", "range": [0, 1, 1]}),
        json!({"program": "p", "args": [[]], "limits": [65_536, 1]}),
    ] {
        assert_eq!(parse(wrong.clone()).map(|_| ()).expect_err(&wrong.to_string()).field, "params");
    }
}
