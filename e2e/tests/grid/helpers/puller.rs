//! A worker that fetches numbers and squares them, if it does not fail or forget them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Answer, try_request};

/// The behavior of a pulling worker after a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Complete,
    Fail,
    /// Says nothing more: the lease expires.
    Forget,
}

/// Tasks of one job that were fetched.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) job: String,
    pub(crate) attempt: String,
    /// The tasks' numbers in the job and what each is for.
    pub(crate) tasks: Vec<(u64, u64)>,
}

/// A worker that fetches from the coordinator whose internal port this is.
#[derive(Clone, Debug)]
pub(crate) struct Puller {
    pub(crate) coordinator: SocketAddr,
    pub(crate) name: String,
}

impl Puller {
    /// Fetches up to `max_tasks` tasks; none where there are none, or where no coordinator gives any out: it is gone, about to
    /// stop, or has just begun and still reads its jobs.
    pub(crate) fn claim(&self, max_tasks: u32) -> Option<Claim> {
        let body = json!({
            "worker_id": self.name, "kinds": ["tasks"], "max_tasks": max_tasks, "wait_seconds": 0.2,
        });
        let answer = try_request(self.coordinator, "POST", "/v1/worker/claim", &[], &body.to_string())?;
        match answer.status {
            200 => (),
            204 => return None,
            _ => {
                check_nobody_answers(&answer);
                return None;
            }
        }
        let claimed = answer.json();
        let text = |field: &str| claimed[field].as_str().expect("an id").to_owned();
        let number = |task: &Value, field: &str| task[field].as_u64().expect("a number");
        let tasks = claimed["tasks"].as_array().expect("tasks");
        let tasks = tasks.iter().map(|task| (number(task, "index"), number(task, "payload"))).collect();
        Some(Claim { job: text("job"), attempt: text("attempt"), tasks })
    }

    /// Ends a claim; whether it was told that this counts. None where no coordinator takes it, as in [`Self::claim`].
    pub(crate) fn end(&self, claim: &Claim, conduct: Conduct) -> Option<bool> {
        let (verb, body) = match conduct {
            Conduct::Complete => {
                let squares: Vec<_> = claim.tasks.iter().map(|(_, number)| number * number).collect();
                ("complete", json!({ "results": squares }))
            }
            Conduct::Fail => ("fail", json!({ "error": "as the test wants it" })),
            Conduct::Forget => return Some(false),
        };
        let target = format!("/v1/worker/tasks/{}/{verb}", claim.attempt);
        let answer = try_request(self.coordinator, "POST", &target, &[], &body.to_string())?;
        match answer.status {
            204 => Some(true),
            409 => Some(false),
            _ => {
                check_nobody_answers(&answer);
                None
            }
        }
    }
}

/// Asserts that a coordinator refuses a request because it is about to stop or still reads its jobs.
fn check_nobody_answers(answer: &Answer) {
    let reasons = ["the coordinator is stopping", "no coordinator leads at the moment"];
    let told = answer.problem(503);
    assert!(reasons.iter().any(|reason| told == format!("{reason}; try again later")), "{told}");
}
