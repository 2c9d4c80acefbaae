//! Statistics over HTTP, compared with the jobs and the event stream.

use std::collections::BTreeMap;

use api::{StatisticsPage, TaskStartsPage};
use model::{EventKind, Grain, JobKind, JobState, Labels};
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use crate::helpers::{EventStream, TestCoordinator, config, problem, read};

async fn periods(grid: &TestCoordinator, query: &str) -> StatisticsPage {
    read(grid.get(&format!("/v1/statistics?{query}")).await, 200).await
}

/// Two jobs of different kinds that succeed, and one that is canceled.
async fn run_jobs(grid: &TestCoordinator) {
    let _worker = grid.add_real_worker("worker", 2, Labels::new()).await;
    let tags = json!({"task": "nap, short"});
    let sleep = json!({"kind": "sleep", "params": {"seconds": 0.01, "tasks": 4}, "tags": tags});
    let count = json!({"kind": "count-primes", "params": {"a": 1, "b": 1000}});
    for job in [grid.submit(&sleep).await, grid.submit(&count).await] {
        grid.job_in(job.id, JobState::Succeeded).await;
    }
    let waits = json!({"kind": "sleep", "params": {"seconds": 1, "tasks": 7}, "requires": {"labels": {"gpu": "yes"}}});
    let waits = grid.submit(&waits).await;
    assert_eq!(grid.act(waits.id, "cancel").await.status(), 200);
}

#[actix_web::test]
async fn figures_are_those_of_the_jobs_in_every_grain_over_a_restart() {
    let grid = TestCoordinator::start(config());
    run_jobs(&grid).await;
    let grid = grid.restart(config()).await;
    for grain in Grain::ALL {
        let page = periods(&grid, &format!("grain={grain}")).await;
        assert_eq!((page.grain, page.next_page_token), (grain, None));
        let sum = |kind: JobKind, figure: fn(&api::PeriodStatistics) -> u64| {
            page.periods.iter().filter(|period| period.kind == kind).map(figure).sum::<u64>()
        };
        let sleep = |figure| sum(JobKind::SLEEP, figure);
        assert_eq!((sleep(|p| p.jobs.submitted), sleep(|p| p.jobs.started), sleep(|p| p.jobs.succeeded)), (2, 1, 1));
        assert_eq!(
            (sleep(|p| p.tasks.submitted), sleep(|p| p.tasks.started), sleep(|p| p.tasks.succeeded)),
            (11, 4, 4)
        );
        assert_eq!((sleep(|p| p.jobs.canceled), sleep(|p| p.tasks.canceled), sleep(|p| p.tasks.starts)), (1, 7, 4));
        let count = |figure| sum(JobKind::COUNT_PRIMES, figure);
        assert_eq!((count(|p| p.jobs.succeeded), count(|p| p.tasks.succeeded), count(|p| p.attempts.ended)), (1, 1, 1));
        let last = page.periods.iter().rfind(|period| period.kind == JobKind::SLEEP).expect("a period");
        assert_eq!((last.jobs.pending, last.tasks.pending), (0, 0));
        let (slept, computed) = (sleep(|p| p.computing.count), sleep(|p| p.computing.sum_us));
        assert!(slept >= 1 && computed >= 40_000, "{slept} attempts in {computed} us");
        let first = page.periods.iter().find(|p| p.waiting.count > 0).expect("a start");
        assert!(first.waiting.p99_seconds >= first.waiting.p50_seconds && first.waiting.p50_seconds.is_some());
        assert!(first.start < first.end);
    }
    assert!(periods(&grid, "kind=tasks").await.periods.is_empty());
    assert!(periods(&grid, "grain=day&from=2020-01-01&to=2020-02-01").await.periods.is_empty());
}

#[actix_web::test]
async fn the_attempt_that_a_job_fails_with_is_counted() {
    let grid = TestCoordinator::start(config());
    let range = json!({"kind": "count-primes", "params": {"a": 1, "b": 10}, "max_attempts": 2});
    let job = grid.submit(&range).await;
    for worker in ["one", "two"] {
        grid.fail(&grid.claimed(worker, &Value::Null).await, "no luck").await;
    }
    let failed = grid.job_in(job.id, JobState::Failed).await;
    let why = "task 0 failed 2 times, the last time because no luck";
    assert_eq!((failed.attempts, failed.error.as_deref()), (2, Some(why)));
    assert_eq!((failed.tasks.failed, failed.tasks.pending), (1, 0));
    let page = periods(&grid, "grain=day").await;
    let sum = |figure: fn(&api::PeriodStatistics) -> u64| page.periods.iter().map(figure).sum::<u64>();
    assert_eq!((sum(|p| p.attempts.ended), sum(|p| p.attempts.failed), sum(|p| p.tasks.starts)), (2, 2, 2));
    assert_eq!((sum(|p| p.tasks.failed), sum(|p| p.tasks.canceled), sum(|p| p.tasks.pending)), (1, 0, 0));
    assert_eq!(grid.act(job.id, "retry").await.status(), 200);
    assert_eq!(grid.job(job.id).await.tasks.pending, 1);
}

#[actix_web::test]
async fn times_that_cannot_be_are_counted_as_the_time_of_their_leases() {
    let grid = TestCoordinator::start(config());
    let list = json!({"kind": "tasks", "params": {"list": [1, 2, 3]}});
    let job = grid.submit(&list).await;
    for _ in 0..3 {
        let claimed = grid.claimed("one", &json!({"max_tasks": 1})).await;
        // As of a clock that was set back in between.
        let report = json!({"results": [1], "compute_us": u64::MAX});
        assert_eq!(grid.report(&claimed, "complete", &report).await.status(), 204);
    }
    grid.job_in(job.id, JobState::Succeeded).await;
    let page = periods(&grid, "grain=month&kind=tasks").await;
    let sum = |figure: fn(&api::PeriodStatistics) -> u64| page.periods.iter().map(figure).sum::<u64>();
    assert_eq!((sum(|p| p.tasks.succeeded), sum(|p| p.computing.count)), (3, 3));
    let an_hour_us = 3_600_000_000;
    assert!(sum(|p| p.computing.sum_us) < an_hour_us, "{page:?}");
}

#[actix_web::test]
async fn pages_follow_each_other_and_a_name_of_tasks_is_counted_apart() {
    let grid = TestCoordinator::start(config());
    run_jobs(&grid).await;
    let whole = periods(&grid, "grain=month").await;
    assert_eq!(whole.periods.len(), 2);
    let first = periods(&grid, "grain=month&limit=1").await;
    let token = first.next_page_token.expect("another page");
    let second = periods(&grid, &format!("grain=month&limit=1&page_token={token}")).await;
    assert_eq!([first.periods, second.periods].concat(), whole.periods);
    assert_eq!(second.next_page_token, None);

    let tasks: TaskStartsPage = read(grid.get("/v1/statistics/tasks?grain=week&kind=sleep").await, 200).await;
    let starts: Vec<_> = tasks.tasks.iter().map(|task| (task.task.as_str(), task.starts)).collect();
    assert_eq!(starts, [("nap, short", 4)]);
    let first: TaskStartsPage = read(grid.get("/v1/statistics/tasks?grain=week&limit=1").await, 200).await;
    let token = first.next_page_token.expect("another page");
    let path = format!("/v1/statistics/tasks?grain=week&limit=1&page_token={token}");
    let second: TaskStartsPage = read(grid.get(&path).await, 200).await;
    assert_eq!(second.tasks, tasks.tasks);
}

#[actix_web::test]
async fn figures_come_as_csv_to_a_client_that_accepts_it() {
    let grid = TestCoordinator::start(config());
    run_jobs(&grid).await;
    let get = async |path: &str| {
        let url = format!("http://{}{path}", grid.public);
        grid.client.get(url).header(ACCEPT, "text/csv;q=0.9, */*;q=0.1").send().await.expect("an answer")
    };
    let response = get("/v1/statistics?grain=day&limit=1").await;
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let link = response.headers()["link"].to_str().expect("text").to_owned();
    let next = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")).expect("a link").0;
    let text = response.text().await.expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0], StatisticsPage::COLUMNS.join(","));
    assert!(lines[1].contains(",count-primes,1,1,1,0,0,0,0,1,"), "{text}");
    let text = get(next).await.text().await.expect("text");
    assert!(text.lines().nth(1).is_some_and(|line| line.contains(",sleep,2,")), "{text}");
    let url = format!("http://{}/v1/statistics?grain=day", grid.public);
    let json = grid.client.get(url).header(ACCEPT, "text/csv;q=0.1, application/json").send().await.expect("an answer");
    assert_eq!(json.headers()["content-type"], "application/json");
    let text = get("/v1/statistics/tasks?grain=day").await.text().await.expect("text");
    assert!(text.ends_with(",sleep,\"nap, short\",4\r\n"), "{text}");
}

#[actix_web::test]
async fn a_query_that_cannot_be_is_refused_with_the_name_of_its_field() {
    let grid = TestCoordinator::start(config());
    for (query, field) in [
        ("grain=year", "grain"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-03-22&to=2026-03-21", "from"),
        ("from=2026-03-21T10:00", "from"),
        ("kind=No%20Kind", "kind"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("page_token=x", "page_token"),
    ] {
        for path in ["/v1/statistics", "/v1/statistics/tasks"] {
            let problem = problem(grid.get(&format!("{path}?{query}")).await, 400).await;
            assert!(problem.detail.starts_with(field), "{query}: {}", problem.detail);
        }
    }
    let future = problem(grid.get("/v1/statistics?from=9999-01-01").await, 400).await;
    assert_eq!(future.detail, "from must not be after now, where \"to\" is not given");
    for query in ["", "from=2026-03-21T10:00:00%2B02:00&to=2026-03-22", "grain=month&from=0001-01-01&to=9999-12-31"] {
        periods(&grid, query).await;
    }
}

/// Counted from nothing but the plain fields of the events, as a reader of the stream would.
#[actix_web::test]
async fn events_say_what_they_count() {
    let grid = TestCoordinator::start(config());
    run_jobs(&grid).await;
    let mut stream = EventStream::open(&grid, "/v1/events?after=0&follow=false", None).await;
    let mut done = BTreeMap::new();
    let mut by_kind: BTreeMap<JobKind, [u64; 5]> = BTreeMap::new();
    while let Some(event) = stream.next().await {
        let figures = by_kind.entry(event.job_kind.expect("a kind")).or_default();
        figures[0] += u64::from(event.kind == EventKind::Submitted);
        figures[1] += if event.kind == EventKind::Submitted { event.tasks_total.unwrap_or(0) } else { 0 };
        figures[2] += u64::from(event.kind == EventKind::Succeeded);
        figures[3] += u64::from(event.kind == EventKind::Canceled);
        let now = event.tasks_done.unwrap_or(0);
        figures[4] += now - done.insert(event.job, now).unwrap_or(0);
    }
    let page = periods(&grid, "grain=month").await;
    for (kind, [submitted, tasks, succeeded, canceled, tasks_done]) in by_kind {
        let of_kind = || page.periods.iter().filter(|period| period.kind == kind);
        assert_eq!(of_kind().map(|period| period.jobs.submitted).sum::<u64>(), submitted, "{kind}");
        assert_eq!(of_kind().map(|period| period.tasks.submitted).sum::<u64>(), tasks, "{kind}");
        assert_eq!(of_kind().map(|period| period.jobs.succeeded).sum::<u64>(), succeeded, "{kind}");
        assert_eq!(of_kind().map(|period| period.jobs.canceled).sum::<u64>(), canceled, "{kind}");
        assert_eq!(of_kind().map(|period| period.tasks.succeeded).sum::<u64>(), tasks_done, "{kind}");
    }
}

#[actix_web::test]
async fn periods_without_events_are_listed_on_demand_while_jobs_are_open() {
    let grid = TestCoordinator::start(config());
    let waits = json!({"kind": "sleep", "params": {"seconds": 1, "tasks": 7}, "requires": {"labels": {"gpu": "yes"}}});
    let waits = grid.submit(&waits).await;
    // The next minutes are in the future, whatever the current minute is.
    let plain = periods(&grid, "grain=minute").await.periods;
    assert_eq!((plain.len(), plain[0].jobs.pending), (1, 1));
    let filled = periods(&grid, "grain=minute&fill=true&from=2020-01-01&to=2200-01-01").await.periods;
    assert!((1..=2).contains(&filled.len()), "nothing is listed that is still to come: {filled:?}");
    assert_eq!((&filled[0], filled.last().map(|last| last.tasks.pending)), (&plain[0], Some(7)));
    assert_eq!(grid.act(waits.id, "cancel").await.status(), 200);
    let filled = periods(&grid, "grain=day&from=2020-01-01&fill=true").await.periods;
    assert_eq!(filled, periods(&grid, "grain=day&from=2020-01-01").await.periods);
    problem(grid.get("/v1/statistics?fill=maybe").await, 400).await;
    problem(grid.get("/v1/statistics/tasks?fill=true").await, 400).await;
}
