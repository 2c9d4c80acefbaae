//! Lists of jobs.

use api::{Job, JobPage};
use model::{JobState, Labels};
use serde_json::json;

use crate::helpers::{TestCoordinator, config, numbered_tasks, problem, read, sleeps, with};

impl TestCoordinator {
    async fn list(&self, query: &str) -> JobPage {
        read(self.get(&format!("/v1/jobs{query}")).await, 200).await
    }

    /// Every page from `query` on.
    async fn pages(&self, query: &str) -> Vec<Vec<Job>> {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.list(&format!("{query}{token}")).await;
            pages.push(page.jobs);
            let Some(next) = page.next_page_token else { return pages };
            token = format!("&page_token={next}");
        }
    }
}

#[actix_web::test]
async fn pages_hold_every_job_once_newest_first_while_new_ones_come() {
    let grid = TestCoordinator::start(config());
    let mut newest_first = Vec::new();
    for _ in 0..120 {
        newest_first.insert(0, grid.submit(&numbered_tasks(1)).await.id);
    }
    let first = grid.list("").await;
    assert_eq!(first.jobs.len(), 100);
    let later = grid.submit(&numbered_tasks(1)).await;
    let token = first.next_page_token.expect("there are more");
    let second = grid.list(&format!("?page_token={token}")).await;
    assert_eq!(second.next_page_token, None);
    let listed: Vec<_> = first.jobs.iter().chain(&second.jobs).map(|job| job.id).collect();
    assert_eq!(listed, newest_first);
    assert_eq!(grid.list("?limit=1").await.jobs[0].id, later.id);
    let sizes: Vec<_> = grid.pages("?limit=50").await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [50, 50, 21]);
    let exact = grid.pages("?limit=121").await;
    assert_eq!(exact.len(), 1, "no token leads to an empty page");
}

#[actix_web::test]
async fn a_page_of_jobs_with_many_long_words_ends_early_and_the_pages_have_every_job_once() {
    const JOBS: usize = 260;
    let grid = TestCoordinator::start(config());
    // The longest texts that are allowed: 48 KiB a job.
    let words = |first: char| -> Labels {
        let long = |number: u32| (format!("{first}{number:0255}"), "v".repeat(256));
        (0..32).map(long).collect()
    };
    let labels = json!({"tags": words('t'), "affinity": {"labels": words('a')}, "requires": {"labels": words('r')}});
    let mut newest_first = Vec::new();
    for _ in 0..JOBS {
        newest_first.insert(0, grid.submit(&with(numbered_tasks(1), &labels)).await.id);
    }
    let pages = grid.pages("?limit=1000").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [200, 60]);
    let listed: Vec<_> = pages.concat().iter().map(|job| job.id).collect();
    assert_eq!(listed, newest_first);
}

#[actix_web::test]
async fn filters_are_met_all_together_and_states_one_of_them() {
    let grid = TestCoordinator::start(config());
    let tagged = |tags: serde_json::Value| with(numbered_tasks(1), &json!({ "tags": tags }));
    let blue = grid.submit(&tagged(json!({"team": "blue", "a.b": "c:d=e"}))).await.id;
    let red = grid.submit(&tagged(json!({"team": "red"}))).await.id;
    let sleeping = grid.submit(&with(sleeps(1.0, 1), &json!({"tags": {"team": "blue"}}))).await.id;
    let canceled = grid.submit(&tagged(json!({"team": "blue"}))).await.id;
    assert_eq!(grid.act(canceled, "cancel").await.status(), 200);
    assert_eq!(grid.act(red, "pause").await.status(), 200);
    for (query, expected) in [
        ("?tag=team", vec![canceled, sleeping, red, blue]),
        ("?tag=team:blue", vec![canceled, sleeping, blue]),
        ("?tag=team=blue", vec![canceled, sleeping, blue]),
        ("?tag=team%3Dblue&kind=tasks", vec![canceled, blue]),
        ("?tag=team:blue&kind=tasks", vec![canceled, blue]),
        ("?tag=team:blue&state=queued", vec![sleeping, blue]),
        ("?state=paused&state=canceled", vec![canceled, red]),
        ("?state=queued&kind=sleep&tag=team", vec![sleeping]),
        ("?tag=team:blue&tag=team:red", vec![]),
        ("?tag=a.b=c:d=e", vec![blue]),
        ("?tag=team:green", vec![]),
        ("?tag=nothing", vec![]),
        ("?state=succeeded", vec![]),
    ] {
        let listed: Vec<_> = grid.list(query).await.jobs.iter().map(|job| job.id).collect();
        assert_eq!(listed, expected, "{query}");
        let one_by_one = grid.pages(&format!("{query}&limit=1")).await.concat();
        assert_eq!(one_by_one.iter().map(|job| job.id).collect::<Vec<_>>(), expected, "{query}");
    }
    assert_eq!(grid.job(red).await.state, JobState::Paused);
}

#[actix_web::test]
async fn a_job_is_listed_as_running_and_not_as_queued_as_soon_as_it_is_shown_so() {
    let grid = TestCoordinator::start(config());
    for _ in 0..20 {
        let job = grid.submit(&numbered_tasks(1)).await.id;
        let claimed = grid.claimed("one", &json!({})).await;
        let shown = grid.job(job).await;
        assert_eq!((shown.state, shown.tasks.running), (JobState::Running, 1));
        assert!(shown.started_at.is_some());
        let listed = |page: JobPage| page.jobs.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>();
        assert_eq!(listed(grid.list("?state=running").await), [(job, JobState::Running)]);
        assert_eq!(grid.list("?state=queued").await.jobs.len(), 0);
        grid.complete(&claimed, &json!([1])).await;
        grid.job_in(job, JobState::Succeeded).await;
    }
}

#[actix_web::test]
async fn a_wrong_filter_is_named() {
    let grid = TestCoordinator::start(config());
    for (query, field) in [
        ("state=over", "state"),
        ("kind=sum", "kind"),
        ("kind=tasks&kind=sleep", "kind"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("page_token=x", "page_token"),
        ("page_token=", "page_token"),
        ("stat=queued", "stat"),
    ] {
        let problem = problem(grid.get(&format!("/v1/jobs?{query}")).await, 400).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{query}: {}", problem.detail);
    }
    for path in ["/v1/jobs/x", "/v1/jobs/0198c5f0-0000-7000-8000-000000000001"] {
        problem(grid.get(path).await, 404).await;
    }
}

#[actix_web::test]
async fn a_wrong_parameter_is_told_in_plain_words() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&sleeps(0.0, 1)).await.id;
    let no_token = "page_token is none that this list has given: leave it out for the first page";
    for (path, detail) in [
        ("/v1/jobs?limit=x".to_owned(), "limit must be a whole number from 1 to 1000, but is \"x\""),
        ("/v1/jobs?limit=-1".to_owned(), "limit must be a whole number from 1 to 1000, but is \"-1\""),
        ("/v1/jobs?limit=1001".to_owned(), "limit must be a whole number from 1 to 1000, but is \"1001\""),
        ("/v1/jobs?limit=1&limit=2".to_owned(), "limit is given more than once: give it once"),
        ("/v1/jobs?page_token=x".to_owned(), no_token),
        ("/v1/programs?page_token=x".to_owned(), no_token),
        (format!("/v1/jobs/{job}/tasks?page_token=x"), no_token),
        (format!("/v1/jobs/{job}/logs?page_token=x"), no_token),
        ("/v1/statistics?page_token=x".to_owned(), no_token),
        ("/v1/statistics?limit=0".to_owned(), "limit must be a whole number from 1 to 1000, but is \"0\""),
        (format!("/v1/jobs/{job}/events?after=x"), "after must be a whole number, but is \"x\""),
        (format!("/v1/jobs/{job}/events?follow=maybe"), "follow must be true or false, but is \"maybe\""),
        (format!("/v1/jobs/{job}/logs?task=x"), "task must be a whole number, but is \"x\""),
        (format!("/v1/jobs/{job}/logs?task=-1"), "task must not be negative, but is -1"),
        ("/sum-of-primes?a=1&b=2&verify=yes".to_owned(), "verify must be true or false, but is \"yes\""),
    ] {
        assert_eq!(problem(grid.get(&path).await, 400).await.detail, detail, "{path}");
    }
}
