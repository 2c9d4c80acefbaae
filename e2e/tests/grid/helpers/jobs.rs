//! Stored jobs as a client meets them whose coordinator may be gone at any moment: it asks again until it is answered.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Answer, Coordinator, eventually, get, published_count, published_sum, request, try_request};

/// A job to submit, and its expected result.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) body: String,
    pub(crate) result: Value,
    pub(crate) tasks: Tasks,
}

/// The workers of a job's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// Real workers.
    Pushed,
    /// Workers that pull; the number of tasks.
    Fetched(u64),
}

/// Attempts that fail on purpose must not use them up.
const MAX_ATTEMPTS: u32 = 100;

impl Order {
    /// The sum of the primes from behind 10^`start` to 10^`end`, by a sieve.
    pub(crate) fn sum(start: u32, end: u32) -> Self {
        Self::sum_by("sieve", start, end)
    }

    /// The sum of the primes from behind 10^`start` to 10^`end`, by `algorithm`.
    pub(crate) fn sum_by(algorithm: &str, start: u32, end: u32) -> Self {
        let (a, b) = (10_u64.pow(start) + 1, 10_u64.pow(end));
        let sum = (published_sum(end) - published_sum(start)).to_string();
        let params = json!({ "a": a, "b": b, "algorithm": algorithm });
        Self::new("sum-of-primes", &params, json!({ "a": a, "b": b, "sum": sum }), Tasks::Pushed)
    }

    /// The count of the primes from behind 10^`start` to 10^`end`.
    pub(crate) fn count(start: u32, end: u32) -> Self {
        let (a, b) = (10_u64.pow(start) + 1, 10_u64.pow(end));
        let count = (published_count(end) - published_count(start)).to_string();
        let params = json!({ "a": a, "b": b, "algorithm": "sieve" });
        Self::new("count-primes", &params, json!({ "a": a, "b": b, "count": count }), Tasks::Pushed)
    }

    /// Simulated work.
    pub(crate) fn sleep(tasks: u64, seconds: f64) -> Self {
        Self::new("sleep", &json!({ "seconds": seconds, "tasks": tasks }), json!({ "tasks": tasks }), Tasks::Pushed)
    }

    /// Numbers to be squared by a worker that fetches them.
    pub(crate) fn squares(numbers: &[u64]) -> Self {
        let squares: Vec<_> = numbers.iter().map(|number| number * number).collect();
        let tasks = Tasks::Fetched(numbers.len() as u64);
        Self::new("tasks", &json!({ "list": numbers }), json!({ "tasks": squares }), tasks)
    }

    fn new(kind: &str, params: &Value, result: Value, tasks: Tasks) -> Self {
        let body = json!({ "kind": kind, "params": params, "max_attempts": MAX_ATTEMPTS }).to_string();
        Self { body, result, tasks }
    }
}

/// A client of a coordinator at this address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobClient(pub(crate) SocketAddr);

impl JobClient {
    /// Submits under a key until it is acknowledged; the job's id.
    pub(crate) fn submit(self, order: &Order, key: &str) -> String {
        let headers = [("idempotency-key", key)];
        let answer = acknowledged(|| try_request(self.0, "POST", "/v1/jobs", &headers, &order.body));
        accepted_id(&answer)
    }

    /// Submits under an id of the client's own until it is acknowledged.
    pub(crate) fn put(self, order: &Order, id: &str) {
        let target = format!("/v1/jobs/{id}");
        let answer = acknowledged(|| try_request(self.0, "PUT", &target, &[], &order.body));
        assert_eq!(accepted_id(&answer), id);
    }

    /// The job as it is now.
    pub(crate) fn job(self, id: &str) -> Value {
        self.read(&format!("/v1/jobs/{id}"))
    }

    /// The result, if it is there a second from now at the latest.
    pub(crate) fn result(self, id: &str) -> Option<Value> {
        let answer = try_request(self.0, "GET", &format!("/v1/jobs/{id}/result?wait=1s"), &[], "")?;
        match answer.status {
            200 => Some(answer.json()),
            409 => {
                let message = answer.problem(409);
                // A notice may follow.
                let is_on_its_way =
                    ["the job is queued", "the job is running"].iter().any(|state| message.contains(state));
                assert!(is_on_its_way, "{message}");
                None
            }
            // The coordinator has stopped during the wait.
            503 => None,
            _ => panic!("job {id}: {answer:?}"),
        }
    }

    /// Changes a job, which must be possible.
    pub(crate) fn act(self, id: &str, action: &str) -> Value {
        let answer = request(self.0, "POST", &format!("/v1/jobs/{id}/{action}"), &[], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Every job there is, the newest first.
    pub(crate) fn jobs(self) -> Vec<Value> {
        let (mut jobs, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.read(&format!("/v1/jobs?limit=1000{token}"));
            jobs.extend_from_slice(page["jobs"].as_array().expect("a page"));
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return jobs,
            }
        }
    }

    pub(crate) fn stats(self) -> Value {
        self.read("/v1/stats")
    }

    /// The answer to a read. Several coordinators put it off while none of them leads.
    fn read(self, target: &str) -> Value {
        let answer =
            eventually("a read is answered", || Some(get(self.0, target)).filter(|answer| answer.status != 503));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

impl Coordinator {
    pub(crate) fn client(&self) -> JobClient {
        JobClient(self.public)
    }

    /// Submits a job, which must be accepted; its id.
    pub(crate) fn submit(&self, order: &Order) -> String {
        accepted_id(&request(self.public, "POST", "/v1/jobs", &[], &order.body))
    }
}

/// The first answer that is not "try again later".
fn acknowledged(mut submit: impl FnMut() -> Option<Answer>) -> Answer {
    eventually("a job is acknowledged", || submit().filter(|answer| answer.status != 503))
}

fn accepted_id(answer: &Answer) -> String {
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}
