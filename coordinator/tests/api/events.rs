//! Events of jobs, as Server-Sent Events.

use std::cell::Cell;

use coordinator::config::Config;
use futures_util::future::join;
use model::{EventKind, JobState};
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::helpers::{EventStream, PATIENCE, TestCoordinator, config, numbered_tasks, pause, problem, with};

#[actix_web::test]
async fn the_life_of_a_job_is_told_in_order_and_ends_with_it() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    let mut events = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await;
    let submitted = events.next().await.expect("an event");
    assert_eq!((submitted.job, submitted.kind, submitted.at), (job.id, EventKind::Submitted, job.submitted_at));
    assert_eq!((submitted.tasks_done, submitted.tasks_total), (Some(0), Some(1)));
    let claimed = grid.claimed("one", &Value::Null).await;
    let started = events.next().await.expect("an event");
    assert_eq!(started.kind, EventKind::Started);
    grid.complete(&claimed, &json!([1])).await;
    let mut last = started;
    while let Some(event) = events.next().await {
        assert!(event.seq > last.seq && event.at >= last.at, "{event:?} after {last:?}");
        last = event;
    }
    assert_eq!((last.kind, last.tasks_done, last.error), (EventKind::Succeeded, Some(1), None));
    assert_eq!(grid.job(job.id).await.finished_at, Some(last.at));
}

#[actix_web::test]
async fn failures_are_told_with_their_reason() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(numbered_tasks(1), &json!({"max_attempts": 1}))).await;
    let claimed = grid.claimed("one", &Value::Null).await;
    grid.fail(&claimed, "no luck").await;
    let mut events = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push((event.kind, event.error));
    }
    let reasons = [
        (EventKind::Submitted, None),
        (EventKind::Started, None),
        (EventKind::TaskFailed, Some("no luck".to_owned())),
        (EventKind::Failed, Some("its only task failed".to_owned())),
    ];
    assert_eq!(told, reasons);
}

#[actix_web::test]
async fn a_stream_that_is_opened_while_its_job_ends_ends_too() {
    let grid = TestCoordinator::start(config());
    for _ in 0..100 {
        let job = grid.submit(&with(numbered_tasks(1), &json!({"max_attempts": 1}))).await;
        let claimed = grid.claimed("one", &Value::Null).await;
        let path = format!("/v1/jobs/{}/events", job.id);
        let (mut events, ()) = tokio::join!(EventStream::open(&grid, &path, None), grid.fail(&claimed, "no luck"));
        let kinds = timeout(PATIENCE, events.rest()).await.expect("it ends");
        assert_eq!(kinds.last(), Some(&EventKind::Failed));
    }
}

#[actix_web::test]
async fn a_client_that_comes_back_gets_what_it_missed() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    let path = format!("/v1/jobs/{}/events", job.id);
    let first = EventStream::open(&grid, &path, None).await.next().await.expect("an event");
    // The client is away during these events.
    assert_eq!(grid.act(job.id, "pause").await.status(), 200);
    assert_eq!(grid.act(job.id, "resume").await.status(), 200);
    let mut events = EventStream::open(&grid, &path, Some(first.seq)).await;
    assert_eq!(events.next().await.expect("an event").kind, EventKind::Paused);
    let seen = events.next().await.expect("an event");
    assert_eq!(seen.kind, EventKind::Resumed);
    drop(events);
    let grid = grid.restart(config()).await;
    let mut events = EventStream::open(&grid, &path, Some(seen.seq)).await;
    let mut from_query = EventStream::open(&grid, &format!("{path}?after={}", seen.seq), None).await;
    assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
    assert_eq!(events.rest().await, [EventKind::Canceled]);
    assert_eq!(from_query.rest().await, [EventKind::Canceled]);
}

#[actix_web::test]
async fn who_comes_after_the_end_learns_of_it_and_then_of_nothing() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
    let path = format!("/v1/jobs/{}/events", job.id);
    let mut events = EventStream::open(&grid, &path, None).await;
    let submitted = events.next().await.expect("an event");
    let end = events.next().await.expect("an event");
    assert_eq!((submitted.kind, end.kind), (EventKind::Submitted, EventKind::Canceled));
    assert_eq!(events.next().await, None);
    assert_eq!(EventStream::open(&grid, &path, Some(submitted.seq)).await.rest().await, [EventKind::Canceled]);
    assert_eq!(grid.get(&format!("{path}?after={}", end.seq)).await.status(), 204);
    // A retried job has more events for a follower that knew of its end.
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    let mut events = EventStream::open(&grid, &path, Some(end.seq)).await;
    assert_eq!(events.next().await.expect("an event").kind, EventKind::Retried);
}

#[actix_web::test]
async fn the_stream_of_all_tells_of_every_job_from_now_on() {
    let grid = TestCoordinator::start(config());
    let before = grid.submit(&numbered_tasks(1)).await;
    let mut events = EventStream::open(&grid, "/v1/events", None).await;
    let mut all = EventStream::open(&grid, "/v1/events?after=0", None).await;
    let after = grid.submit(&numbered_tasks(1)).await;
    assert_eq!(grid.act(before.id, "cancel").await.status(), 200);
    let mut told = Vec::new();
    for _ in 0..2 {
        let event = events.next().await.expect("an event");
        told.push((event.job, event.kind));
    }
    assert_eq!(told, [(after.id, EventKind::Submitted), (before.id, EventKind::Canceled)]);
    assert_eq!(all.next().await.expect("an event").job, before.id);
}

#[actix_web::test]
async fn progress_is_told_once_a_second_at_most() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(10_000)).await;
    let mut events = EventStream::open(&grid, &format!("/v1/jobs/{}/events", job.id), None).await;
    let is_told = Cell::new(false);
    // Tasks end one by one until there are two events of progress, and then all at once.
    let working = async {
        loop {
            let most = if is_told.get() { 10_000 } else { 1 };
            let Some(claimed) = grid.claim("one", &json!({ "max_tasks": most })).await else { break };
            grid.complete(&claimed, &json!(vec![1; claimed.tasks.len()])).await;
            pause().await;
        }
    };
    let reading = async {
        let (mut done, mut reports, mut ended_at) = (0, 0, job.submitted_at);
        while let Some(event) = events.next().await {
            assert!(event.tasks_done >= Some(done), "{event:?}");
            done = event.tasks_done.expect("a number");
            reports += u32::from(event.kind == EventKind::Progress);
            is_told.set(reports >= 2);
            ended_at = event.at;
        }
        (done, reports, ended_at)
    };
    let ((), (done, reports, ended_at)) = join(working, reading).await;
    let seconds = ended_at.duration_since(job.submitted_at).as_secs_f64();
    assert_eq!(done, 10_000);
    assert!((2.0..=seconds + 1.0).contains(&f64::from(reports)), "{reports} reports in {seconds} s");
}

#[actix_web::test]
async fn a_place_beyond_the_end_is_said_before_the_stream_goes_on() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    assert_eq!(grid.act(job.id, "cancel").await.status(), 200);
    let of_job = format!("/v1/jobs/{}/events", job.id);

    let mut events = EventStream::open(&grid, &of_job, Some(900)).await;
    assert_eq!(
        events.reset().await,
        ("0".to_owned(), json!({"asked_after": 900, "oldest": 1, "newest": 2, "resumes_after": 0}))
    );
    assert_eq!(events.rest().await, [EventKind::Submitted, EventKind::Canceled]);

    let mut events = EventStream::open(&grid, "/v1/events", Some(900)).await;
    assert_eq!(
        events.reset().await,
        ("2".to_owned(), json!({"asked_after": 900, "oldest": 1, "newest": 2, "resumes_after": 2}))
    );
    let next = grid.submit(&numbered_tasks(1)).await;
    assert_eq!(events.next().await.expect("an event").job, next.id);
}

#[actix_web::test]
async fn events_that_are_not_kept_any_more_are_said_before_the_stream_goes_on() {
    let grid = TestCoordinator::start(config());
    let kept = grid.submit(&numbered_tasks(1)).await;
    let forgotten = grid.submit(&numbered_tasks(1)).await;
    assert_eq!(grid.act(forgotten.id, "cancel").await.status(), 200);
    let grid = grid.restart(Config { retention_bytes: 0, ..config() }).await;
    while grid.get(&format!("/v1/jobs/{}", forgotten.id)).await.status() != 404 {
        pause().await;
    }

    let mut events = EventStream::open(&grid, "/v1/events", Some(1)).await;
    assert_eq!(
        events.reset().await,
        ("3".to_owned(), json!({"asked_after": 1, "oldest": 1, "newest": 3, "resumes_after": 3}))
    );
    assert_eq!(grid.act(kept.id, "pause").await.status(), 200);
    assert_eq!(events.next().await.expect("an event").kind, EventKind::Paused);
    // From the newest event on nothing is missing.
    let mut events = EventStream::open(&grid, "/v1/events", Some(4)).await;
    assert_eq!(grid.act(kept.id, "resume").await.status(), 200);
    assert_eq!(events.next().await.expect("an event").kind, EventKind::Resumed);
}

#[actix_web::test]
async fn a_wrong_place_in_the_stream_is_named() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&numbered_tasks(1)).await;
    for path in ["/v1/events".to_owned(), format!("/v1/jobs/{}/events", job.id)] {
        assert_eq!(problem(grid.get(&format!("{path}?after=x")).await, 400).await.field.as_deref(), Some("after"));
        for id in [&b"x"[..], b"-1", b"1.0", b"\xff"] {
            let id = HeaderValue::from_bytes(id).expect("a value");
            let request = grid.client.get(format!("http://{}{path}", grid.public)).header("Last-Event-ID", id);
            let answer = request.send().await.expect("an answer");
            assert_eq!(problem(answer, 400).await.field.as_deref(), Some("Last-Event-ID"));
        }
        let twice = grid.client.get(format!("http://{}{path}", grid.public));
        let twice = twice.header("Last-Event-ID", "1").header("Last-Event-ID", "2").send().await.expect("an answer");
        assert_eq!(problem(twice, 400).await.detail, "Last-Event-ID is given more than once: give it once");
        let far = u64::MAX.to_string();
        assert_eq!(grid.get(&format!("{path}?after={far}")).await.status(), 200, "a reset, which is no error");
    }
    problem(grid.get("/v1/jobs/0198c5f0-0000-7000-8000-000000000001/events").await, 404).await;
    assert_eq!(grid.job(job.id).await.state, JobState::Queued);
}
