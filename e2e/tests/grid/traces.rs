//! A trace runs from a client's request over the job, its leases and the workers to the result, as a collector gets it from real
//! processes, also where a coordinator dies in between.

use serde_json::{Value, json};

use crate::helpers::{
    Answer, Collector, Coordinator, Group, LONG_LEASE, Order, Process, ReceivedSpan, Signal, Worker, divvy, eventually,
    own_address, path, published_sum, request,
};

/// `SpanKind` of OpenTelemetry's protocol.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// A trace that a client has begun, and its span.
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// Headers of a client, whose trace is its own by `number`.
fn of_client(number: u32, flags: &str) -> (String, [(&'static str, String); 2]) {
    let trace = format!("{number:08x}77b34da6a3ce929d0e0e4736");
    let parent = format!("00-{trace}-{CLIENT_SPAN}-{flags}");
    (trace, [("traceparent", parent), ("tracestate", "vendor=1".to_owned())])
}

fn submit(coordinator: &Coordinator, order: &Order, headers: &[(&'static str, String)]) -> String {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = request(coordinator.public, "POST", "/v1/jobs", &headers, &order.body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The spans of a trace with a name.
fn named(spans: &[ReceivedSpan], name: &str) -> Vec<ReceivedSpan> {
    spans.iter().filter(|span| span.name == name).cloned().collect()
}

/// Waits until each lease of a job has its span and all that is below it; checks who is whose parent, and returns the leases.
fn check_leases(collector: &Collector, trace: &str, kind: &str, parent: &str) -> Vec<ReceivedSpan> {
    let (lease_name, compute_name) = (format!("lease {kind}"), format!("compute {kind}"));
    let is_below = |spans: &[ReceivedSpan], parent: &str| spans.iter().any(|span| span.parent == parent);
    eventually("all that is below the leases comes", || {
        let spans = collector.spans_of(trace);
        let (leases, posts) = (named(&spans, &lease_name), named(&spans, "POST /lease"));
        let computed = named(&spans, &compute_name);
        let is_whole = !leases.is_empty()
            && leases.iter().all(|lease| is_below(&posts, &lease.id))
            && posts
                .iter()
                .all(|post| is_below(&computed, &post.id) && leases.iter().any(|lease| lease.id == post.parent));
        is_whole.then_some(())
    });
    let spans = collector.spans_of(trace);
    let leases = named(&spans, &lease_name);
    for lease in &leases {
        assert_eq!((lease.parent.as_str(), lease.kind, lease.service.as_str()), (parent, CLIENT, "divvy-coordinator"));
        assert_eq!(lease.attribute("divvy.lease.outcome"), "completed", "{lease:?}");
        assert!(lease.times.0 <= lease.times.1, "{lease:?}");
    }
    for post in named(&spans, "POST /lease") {
        assert_eq!((post.kind, post.service.as_str()), (SERVER, "divvy-worker"), "{post:?}");
        assert_eq!(post.attribute("http.response.status_code"), "200");
    }
    for computed in named(&spans, &compute_name) {
        assert_eq!((computed.kind, computed.service.as_str()), (INTERNAL, "divvy-worker"), "{computed:?}");
    }
    leases
}

#[test]
fn one_trace_runs_from_a_clients_request_over_leases_and_workers_to_the_result() {
    let collector = Collector::start();
    let coordinator = Coordinator::start(&[&collector.variables()[..], &[("DIVVY_CHUNK_SIZE", "250000")]].concat());
    let worker = Worker::join(&coordinator, &collector.variables());
    let (trace, headers) = of_client(1, "01");
    let job = submit(&coordinator, &Order::sum(1, 7), &headers);
    let result = collector.wait_for(&trace, "job sum-of-primes");
    let submission = collector.wait_for(&trace, "POST /v1/jobs");
    assert_eq!(
        (submission.parent.as_str(), submission.kind, submission.state.as_str()),
        (CLIENT_SPAN, SERVER, "vendor=1")
    );
    assert_eq!(submission.attribute("http.request.method"), "POST");
    assert_eq!(submission.attribute("http.route"), "/v1/jobs");
    assert_eq!(submission.attribute("http.response.status_code"), "201");
    assert_eq!((&result.parent, result.kind, result.is_error), (&submission.id, INTERNAL, false));
    assert_eq!((result.attribute("divvy.job.id"), result.attribute("divvy.job.state")), (job.as_str(), "succeeded"));
    assert!(submission.times.0 <= result.times.1 && result.times.0 <= result.times.1, "{submission:?} {result:?}");
    let leases = check_leases(&collector, &trace, "sum-of-primes", &result.id);
    let mut tasks = 0;
    for lease in &leases {
        assert_eq!((lease.attribute("divvy.job.id"), lease.attribute("divvy.worker.id")), (&*job, &*worker.id));
        let number = |name: &str| lease.attribute(name).parse::<u64>().expect("a number");
        tasks += number("divvy.tasks.beyond") - number("divvy.tasks.first");
    }
    assert_eq!(coordinator.client().job(&job)["tasks"]["succeeded"], tasks, "every task is in one lease");
    // Heartbeats, probes and metrics go on all the while and begin no trace.
    assert!(collector.spans().iter().all(|span| !span.name.contains("/worker/") && !span.name.contains("/readyz")));
}

#[test]
fn trace_goes_on_where_its_coordinator_was_killed_between_submission_and_lease() {
    let collector = Collector::start();
    let mut coordinator = Coordinator::start_to_stay(&collector.variables());
    let (trace, headers) = of_client(2, "01");
    let job = submit(&coordinator, &Order::sum(1, 6), &headers);
    let submission = collector.wait_for(&trace, "POST /v1/jobs");
    coordinator.kill();
    coordinator.start_again(&collector.variables());
    let _worker = Worker::join(&coordinator, &collector.variables());
    let result = collector.wait_for(&trace, "job sum-of-primes");
    assert_eq!((&result.parent, result.attribute("divvy.job.id")), (&submission.id, job.as_str()));
    check_leases(&collector, &trace, "sum-of-primes", &result.id);
}

#[test]
fn lease_that_outlives_its_coordinator_ends_its_span_at_the_next_one() {
    let collector = Collector::start();
    // Longer than the test: the task is not given out again because its worker is late with its list of leases.
    let variables = [&collector.variables()[..], &[("DIVVY_RECOVERY_MS", "600000")]].concat();
    let mut coordinator = Coordinator::start_to_stay(&variables);
    let worker = Worker::join(&coordinator, &collector.variables());
    let (trace, headers) = of_client(3, "01");
    // The task still runs when its coordinator dies.
    let job = submit(&coordinator, &Order::sleep(1, 10.0), &headers);
    eventually("it runs", || (coordinator.client().job(&job)["tasks"]["running"] == 1).then_some(()));
    eventually("its worker has it", || {
        (worker.metric(r#"divvy_worker_held_leases{state="running"}"#) == 1.0).then_some(())
    });
    coordinator.wait_until_all_is_stored();
    coordinator.kill();
    coordinator.start_again(&variables);
    let result = collector.wait_for(&trace, "job sleep");
    let lease = collector.wait_for(&trace, "lease sleep");
    assert_eq!((&lease.parent, lease.attribute("divvy.worker.id")), (&result.id, worker.id.as_str()));
    let computed = collector.wait_for(&trace, "compute sleep");
    let post = collector.spans_of(&trace).into_iter().find(|span| span.id == computed.parent);
    // The request that brought the lease ended with its coordinator.
    let post = post.expect("the worker's span of the request");
    assert_eq!(
        (post.parent, computed.attribute("divvy.attempt.id")),
        (lease.id.clone(), lease.attribute("divvy.attempt.id"))
    );
}

/// Claims of a worker that pulls.
fn pull(coordinator: &Coordinator, target: &str, body: &Value) -> Answer {
    request(coordinator.internal, "POST", target, &[], &body.to_string())
}

#[test]
fn claim_is_part_of_the_trace_and_names_its_span_to_the_worker() {
    let collector = Collector::start();
    let mut coordinator = Coordinator::start_to_stay(&collector.variables());
    let (trace, headers) = of_client(4, "01");
    let job = submit(&coordinator, &Order::squares(&[3, 4]), &headers);
    let claim = json!({ "worker_id": "puller", "kinds": ["tasks"], "max_tasks": 1, "wait_seconds": 10 });
    let claimed = [pull(&coordinator, "/v1/worker/claim", &claim), pull(&coordinator, "/v1/worker/claim", &claim)];
    let claimed = claimed.map(|answer| answer.json());
    let complete = |coordinator: &Coordinator, claimed: &Value, result: u32| {
        let attempt = claimed["attempt"].as_str().expect("an id");
        let body = json!({ "results": [result], "lease": claimed["lease"] });
        let answer = pull(coordinator, &format!("/v1/worker/tasks/{attempt}/complete"), &body);
        assert_eq!(answer.status, 204, "{answer:?}");
    };
    complete(&coordinator, &claimed[0], 9);
    eventually("the first lease has its span", || (!collector.spans_of(&trace).is_empty()).then_some(()));
    let first = collector.wait_for(&trace, "lease tasks");
    // No worker would compute the first task again if its outcome were lost with the coordinator.
    coordinator.wait_until_all_is_stored();
    // The second one is reported to a coordinator that has not given it.
    coordinator.kill();
    coordinator.start_again(&collector.variables());
    complete(&coordinator, &claimed[1], 16);
    let result = collector.wait_for(&trace, "job tasks");
    let leases = eventually("both leases have their spans", || {
        let leases = named(&collector.spans_of(&trace), "lease tasks");
        (leases.len() == 2).then_some(leases)
    });
    for (lease, claimed) in [(&first, &claimed[0]), (&leases[1], &claimed[1])] {
        assert_eq!(claimed["traceparent"], format!("00-{trace}-{}-01", lease.id), "{claimed}");
        assert_eq!(claimed["tracestate"], "vendor=1");
        assert_eq!((&lease.parent, lease.attribute("divvy.worker.id")), (&result.id, "puller"));
    }
    assert_eq!(result.attribute("divvy.job.id"), job);
}

#[test]
fn leases_of_a_client_that_waits_are_part_of_its_request() {
    let collector = Collector::start();
    let coordinator = Coordinator::start(&collector.variables());
    let _worker = Worker::join(&coordinator, &collector.variables());
    let (trace, [parent, _]) = of_client(5, "01");
    let target = "/sum-of-primes?a=1&b=10000000&algorithm=sieve";
    let answer = request(coordinator.public, "GET", target, &[(parent.0, &parent.1)], "");
    assert_eq!(answer.sum(), published_sum(7));
    let asked = collector.wait_for(&trace, "GET /sum-of-primes");
    assert_eq!((asked.parent.as_str(), asked.attribute("url.path")), (CLIENT_SPAN, "/sum-of-primes"));
    check_leases(&collector, &trace, "sum-of-primes", &asked.id);
}

#[test]
fn client_decides_whether_its_trace_is_recorded_and_an_invalid_one_is_ignored() {
    let collector = Collector::start();
    let coordinator = Coordinator::start(&collector.variables());
    let _worker = Worker::join(&coordinator, &collector.variables());
    let (unrecorded, headers) = of_client(6, "00");
    let job = submit(&coordinator, &Order::sum(1, 6), &headers);
    eventually("its result", || coordinator.client().result(&job));
    let (trace, mut headers) = of_client(7, "01");
    headers[0].1 = headers[0].1.to_uppercase();
    let job = submit(&coordinator, &Order::sum(1, 6), &headers);
    let result = eventually("the span of the second job comes", || {
        let spans = collector.spans();
        spans.into_iter().find(|span| span.name == "job sum-of-primes")
    });
    // The spans of the first job would have come before it.
    assert!(collector.spans_of(&unrecorded).is_empty());
    assert_eq!(result.attribute("divvy.job.id"), job);
    assert!(collector.spans_of(&trace).is_empty(), "the header in capitals is none");
    let submission = collector.wait_for(&result.trace, "POST /v1/jobs");
    assert_eq!((submission.parent.as_str(), submission.state.as_str()), ("", ""));
}

#[test]
fn standby_and_leader_are_one_trace() {
    let collector = Collector::start();
    let group = Group::start(2, &[&collector.variables()[..], &[LONG_LEASE]].concat());
    let _worker = group.worker(&collector.variables());
    let standby = group.other_than(group.leader());
    let (trace, [parent, _]) = of_client(8, "01");
    let answer = request(standby.public, "GET", "/sum-of-primes?a=1&b=1000000", &[(parent.0, &parent.1)], "");
    assert_eq!(answer.sum(), published_sum(6));
    let spans = eventually("both spans of the request come", || {
        let spans = named(&collector.spans_of(&trace), "GET /sum-of-primes");
        (spans.len() == 2).then_some(spans)
    });
    let first = spans.iter().find(|span| span.parent == CLIENT_SPAN).expect("that of the standby");
    assert!(spans.iter().any(|span| span.parent == first.id), "{spans:?}");
    // A job that the standby accepts is leased by the leader.
    let (trace, headers) = of_client(9, "01");
    submit(standby, &Order::sum(1, 6), &headers);
    let result = collector.wait_for(&trace, "job sum-of-primes");
    assert_eq!(result.parent, collector.wait_for(&trace, "POST /v1/jobs").id);
    check_leases(&collector, &trace, "sum-of-primes", &result.id);
    assert_eq!(named(&collector.spans_of(&trace), "job sum-of-primes").len(), 1, "the leader alone tells the end");
}

#[test]
fn lines_of_the_log_say_which_span_they_are_of() {
    let collector = Collector::start();
    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let made = divvy(&["token", "new", "ann", "--rights", "submit", "--file", path(&file)]).output().expect("run");
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).expect("text");
    let own = [("DIVVY_API_TOKENS_FILE", path(&file))];
    let coordinator = Coordinator::start(&[&collector.variables()[..], &own].concat());
    let (trace, [parent, _]) = of_client(10, "01");
    let authorization = format!("Bearer {}", token.trim());
    let headers = [("authorization", authorization.as_str()), (parent.0, parent.1.as_str())];
    let answer = request(coordinator.public, "POST", "/v1/jobs", &headers, &Order::sum(1, 3).body);
    assert_eq!(answer.status, 201, "{answer:?}");
    let submission = collector.wait_for(&trace, "POST /v1/jobs");
    for message in ["accepted a job", "asked for a change"] {
        let line = coordinator.logged(message);
        assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(trace), &json!(submission.id)), "{line}");
    }
    assert_eq!(coordinator.logged("serving")["trace_id"], Value::Null);
}

/// The number of times that a process has logged a message.
fn count(process: &Process, message: &str) -> usize {
    process.log().iter().filter(|line| line.contains(message)).count()
}

#[test]
fn collector_that_is_away_is_told_once_and_keeps_nobody_waiting() {
    let endpoint = format!("http://{}", own_address().replace(":0", ":4318"));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
    ];
    let mut coordinator = Coordinator::start(&variables);
    let _worker = Worker::join(&coordinator, &variables);
    let message = "the collector does not take spans";
    eventually("it is told", || {
        assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
        (count(&coordinator, message) > 0).then_some(())
    });
    for _ in 0..100 {
        assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
    }
    coordinator.signal(Signal::TERM);
    assert!(coordinator.exit_status().success());
    assert_eq!(count(&coordinator, message), 1, "{:?}", coordinator.log());
    let line = coordinator.log().into_iter().find(|line| line.contains(message)).expect("it is told");
    assert!(line.contains("error sending request: "), "the cause is told: {line}");
}

#[test]
fn last_spans_are_sent_before_a_process_ends() {
    let collector = Collector::start();
    // No batch is sent by itself while this test runs.
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let mut coordinator = Coordinator::start(&variables);
    let (trace, headers) = of_client(11, "01");
    submit(&coordinator, &Order::sum(1, 6), &headers);
    coordinator.signal(Signal::TERM);
    assert!(coordinator.exit_status().success());
    collector.wait_for(&trace, "POST /v1/jobs");
}

#[test]
fn without_a_collector_nothing_is_traced_and_what_is_wrong_in_the_environment_stops_nobody() {
    let plain = Coordinator::start(&[]);
    let (_, headers) = of_client(12, "01");
    submit(&plain, &Order::sum(1, 3), &headers);
    assert_eq!(count(&plain, "trace"), 0, "{:?}", plain.log());
    let grpc = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let coordinator = Coordinator::start(&grpc);
    let line = coordinator.logged("no traces are sent");
    assert!(line["error"].as_str().expect("text").contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{line}");
    let garbled = Coordinator::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")]);
    garbled.logged("no traces are sent");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let without_memory = Coordinator::start(&[endpoint, ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000000000")]);
    without_memory.logged("no traces are sent");
    let disabled = [endpoint, ("OTEL_SDK_DISABLED", "true")];
    assert_eq!(count(&Coordinator::start(&disabled), "trace"), 0);
}

#[test]
fn command_takes_its_span_from_the_environment() {
    let collector = Collector::start();
    let coordinator = Coordinator::start(&collector.variables());
    let _worker = Worker::join(&coordinator, &collector.variables());
    let (trace, [parent, state]) = of_client(13, "01");
    let url = format!("http://{}", coordinator.public);
    let mut command = divvy(&["sum-of-primes", "1", "1000", "--coordinator", &url]);
    let output = command.envs([("TRACEPARENT", parent.1), ("TRACESTATE", state.1)]).output().expect("run");
    assert!(output.status.success(), "{output:?}");
    let asked = collector.wait_for(&trace, "GET /sum-of-primes");
    assert_eq!((asked.parent.as_str(), asked.state.as_str()), (CLIENT_SPAN, "vendor=1"));
}
