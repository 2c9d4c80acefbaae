//! Claims whose answers do not come to their workers, and reports on attempts that are over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use api::{Claimed, Job};
use futures_util::future::join_all;
use model::JobState;
use serde_json::{Value, json};

use crate::helpers::{PATIENCE, TestCoordinator, claim, config, numbered_tasks, with};

/// Claims as a worker whose link breaks when the answer is at its host: the unread answer makes the host reset the
/// connection.
pub(crate) async fn claim_and_break(internal: SocketAddr, worker: &str) {
    post_and_break(internal, "/v1/worker/claim".to_owned(), &claim(worker, &Value::Null)).await;
}

/// Sends a claim together with the completion of `claimed` by the same worker, and breaks the connection.
pub(crate) async fn complete_and_break(internal: SocketAddr, claimed: &Claimed) {
    let next = claim(claimed.lease.worker_id.as_str(), &Value::Null);
    let body = json!({"results": ["done"], "claim": next});
    post_and_break(internal, format!("/v1/worker/tasks/{}/complete", claimed.attempt.0), &body).await;
}

async fn post_and_break(internal: SocketAddr, path: String, body: &Value) {
    let body = body.to_string();
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(internal).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("send");
        let mut status = [0; 12];
        while stream.peek(&mut status).expect("an answer") < status.len() {}
        assert_eq!(&status, b"HTTP/1.1 200");
    });
    asking.await.expect("a lease");
}

#[actix_web::test]
async fn a_worker_whose_claims_are_lost_gets_the_task_at_once_when_it_asks_again() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(1), &json!({"max_attempts": 1}))).await.id;
    // Were the run held back from its only worker, it would be for more than a minute by the end.
    for _ in 0..10 {
        claim_and_break(grid.internal, "only").await;
        grid.job_when(job, |job| job.tasks.running == 0).await;
    }
    let claimed = grid.claimed("only", &Value::Null).await;
    grid.complete(&claimed, &json!(["done"])).await;
    let done = grid.job_in(job, JobState::Succeeded).await;
    assert_eq!(done.attempts, 1, "what never came to the worker was no attempt");
}

#[actix_web::test]
async fn a_report_on_an_attempt_that_is_over_is_refused_before_its_body_is_read() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(2)).await.id;
    let done = grid.claimed("one", &Value::Null).await;
    grid.complete(&done, &json!([1])).await;
    grid.job_when(job, |job| job.tasks.succeeded == 1).await;
    let canceled = grid.claimed("one", &Value::Null).await;
    assert_eq!(grid.act(job, "cancel").await.status(), 200);
    for attempt in [done.attempt, canceled.attempt] {
        let internal = grid.internal;
        let asking = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(internal).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            let head = format!("POST /v1/worker/tasks/{}/complete HTTP/1.1\r\nhost: localhost", attempt.0);
            write!(stream, "{head}\r\ncontent-type: application/json\r\ncontent-length: 60000000\r\n\r\n")
                .expect("send");
            let mut status = [0; 12];
            stream.read_exact(&mut status).expect("an answer, though no body was sent");
            assert_eq!(&status, b"HTTP/1.1 409");
        });
        asking.await.expect("refused");
    }
}

#[actix_web::test]
async fn tasks_that_are_answered_into_a_connection_that_its_worker_has_closed_are_not_tried() {
    const ROUNDS: u32 = 60;
    let grid = TestCoordinator::start(config());
    let head = "POST /v1/worker/claim HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length";
    let (mut jobs, mut answered) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let body = claim(&format!("leaves-{round}"), &json!({"wait_seconds": 30})).to_string();
        let request = format!("{head}: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(grid.internal).expect("connect");
        stream.write_all(request.as_bytes()).expect("room");
        grid.wait_for_pulling(u64::from(round) + 1).await;
        // Time is the subject: the close comes before, during or after the answer.
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(u64::from(round) * 50));
            stream.set_nonblocking(true).expect("an open socket");
            let is_answered = stream.peek(&mut [0]).is_ok();
            drop(stream);
            usize::from(is_answered)
        });
        jobs.push(grid.submit(&numbered_tasks(1)).await.id);
        answered += closing.join().expect("no panic");
    }
    let (mut open, deadline) = (0, Instant::now() + PATIENCE);
    loop {
        while let Some(claimed) = grid.claim("stays", &json!({"wait_seconds": 1})).await {
            grid.complete(&claimed, &json!([1])).await;
            open += 1;
        }
        let jobs = join_all(jobs.iter().map(|id| grid.job(*id))).await;
        let stray: Vec<_> = jobs.iter().filter(|job| !is_in_hand(job) && !has_succeeded_at_once(job)).collect();
        // The tasks of an answer that came before the close stay in hand. The look before the close may miss a few such answers.
        if stray.is_empty() && open + answered + 3 >= ROUNDS as usize {
            return;
        }
        // The end of a connection may be noticed late.
        assert!(Instant::now() < deadline, "{open} open, {answered} answered, {stray:?}");
    }
}

fn is_in_hand(job: &Job) -> bool {
    (job.state, job.tasks.running) == (JobState::Running, 1)
}

fn has_succeeded_at_once(job: &Job) -> bool {
    (job.state, job.attempts) == (JobState::Succeeded, 1)
}
