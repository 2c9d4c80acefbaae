//! The pages for people, as a browser without scripts gets them.

use std::time::Instant;

use api::SimulationStarted;
use coordinator::config::Switch;
use model::{JobState, Labels};
use reqwest::{Method, header};
use serde_json::json;

use crate::helpers::{PATIENCE, TestCoordinator, config, gunzip, numbered_tasks, pause, problem, read, with};

#[tokio::test]
async fn every_page_has_one_heading_a_title_and_a_policy_without_inline_code() {
    let coordinator = TestCoordinator::start(config());
    let job = coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": 1}})).await;
    for path in ["/", "/jobs", "/grid/workers", "/grid/coordinators", "/sign-in", &format!("/jobs/{}", job.id)] {
        let response = coordinator.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let html = response.text().await.expect("text");
        assert_eq!(html.matches("<h1").count(), 1, "{path}");
        assert_eq!(html.matches("<nav aria-label=\"Pages\"").count(), 1, "{path}");
        assert!(html.contains(" · divvy</title>"), "{path}");
        for refused in ["<style", " style=", "<script>", " onclick=", "\"http://", "\"https://"] {
            assert!(!html.contains(refused), "{refused} in {path}");
        }
    }
}

#[tokio::test]
async fn assets_may_be_kept_for_ever_under_their_own_hash_alone() {
    let coordinator = TestCoordinator::start(config());
    let html = coordinator.get("/").await.text().await.expect("text");
    let paths: Vec<_> = html.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let response = coordinator.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
    }
    assert_eq!(coordinator.get("/assets/style.css").await.status(), 404);
    // Of a page that a coordinator of another release has made.
    let other = coordinator.get("/assets/style.0000000000000000.css").await;
    assert_eq!(other.status(), 200);
    assert_eq!(other.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn pages_their_assets_and_the_task_stream_come_compressed_and_programs_are_answered_as_before() {
    let coordinator = TestCoordinator::start(config());
    for number in 0..20 {
        coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": number}})).await;
    }
    let ask = async |path: &str| {
        let request = coordinator.client.get(format!("http://{}{path}", coordinator.public));
        request.header(header::ACCEPT_ENCODING, "gzip, deflate, br").send().await.expect("an answer")
    };
    let html = coordinator.get("/jobs").await.text().await.expect("text");
    let assets = html.split('"').filter(|part| part.starts_with("/assets/") && !part.ends_with(".svg"));
    let mut paths: Vec<_> = assets.map(str::to_owned).collect();
    assert!(paths.len() >= 3, "{paths:?}");
    for path in &paths {
        let (plain, answer) = (coordinator.get(path).await.bytes().await.expect("bytes"), ask(path.as_str()).await);
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
        assert_eq!(gunzip(&answer.bytes().await.expect("bytes")), plain, "{path}");
    }
    paths.extend(["/", "/jobs", "/statistics", "/task-stream", "/submit", "/grid/workers"].map(str::to_owned));
    for path in &paths {
        let answer = ask(path.as_str()).await;
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
        assert_eq!(answer.headers()[header::VARY], "Accept-Encoding", "{path}");
        let compressed = answer.bytes().await.expect("bytes");
        let plain = gunzip(&compressed);
        assert!(compressed.len() < plain.len(), "{path}: {} of {}", compressed.len(), plain.len());
    }
    for path in ["/v1/jobs", "/v1/stats", "/live"] {
        let encoding = ask(path).await.headers().get(header::CONTENT_ENCODING).cloned();
        // A stream names the encoding that it has.
        assert!(encoding.as_ref().is_none_or(|encoding| encoding == "identity"), "{path}: {encoding:?}");
    }
}

#[tokio::test]
async fn a_job_and_its_tasks_are_shown_from_their_submission_to_their_end() {
    let coordinator = TestCoordinator::start(config());
    let body = json!({"kind": "sleep", "params": {"seconds": 0, "tasks": 3}, "tags": {"team": "<b>&"}});
    let job = coordinator.submit(&body).await;
    let page = async || coordinator.get(&format!("/jobs/{}", job.id)).await.text().await.expect("text");
    let waiting = page().await;
    assert!(waiting.contains("Why it waits") && waiting.contains("<bdi>&lt;b&gt;&amp;</bdi>"), "{waiting}");
    assert!(!waiting.contains("<b>"), "what a client wrote is text");
    let _worker = coordinator.add_real_worker("one", 1, Labels::new()).await;
    coordinator.job_in(job.id, JobState::Succeeded).await;
    let done = page().await;
    assert!(done.contains("id=\"task-2\"") && done.contains("Download"), "{done}");
    let result = coordinator.get(&format!("/jobs/{}/result", job.id)).await;
    let disposition = result.headers()[header::CONTENT_DISPOSITION].to_str().expect("text").to_owned();
    assert_eq!(disposition, format!("attachment; filename=\"{}.json\"", job.id));
}

#[tokio::test]
async fn a_list_shows_the_jobs_that_its_address_asks_for() {
    let coordinator = TestCoordinator::start(config());
    for (seconds, team) in [(1, "red"), (2, "blue"), (3, "blue")] {
        let params = json!({"seconds": seconds});
        coordinator.submit(&json!({"kind": "sleep", "params": params, "tags": {"team": team}})).await;
    }
    let rows = async |query: &str| {
        let html = coordinator.get(&format!("/jobs{query}")).await.text().await.expect("text");
        html.matches("<tr id=\"job-").count()
    };
    assert_eq!(rows("").await, 3);
    assert_eq!(rows("?tag=team:blue&state=&kind=").await, 2);
    assert_eq!(rows("?tag=team&tag=team:red").await, 1);
    assert_eq!(rows("?tag=team:blue&tag=team:red").await, 0);
    assert_eq!(rows("?text=SECONDS%22%3A3").await, 1);
    assert_eq!(rows("?state=queued&since=1h&kind=sleep").await, 3);
    assert_eq!(rows("?state=failed").await, 0);
    let wrong = coordinator.get("/jobs?state=lost").await;
    assert_eq!(wrong.status(), 400);
    let wrong = wrong.text().await.expect("text");
    assert!(wrong.contains("state must be queued") && !wrong.contains("No job has been submitted"), "{wrong}");
}

#[tokio::test]
async fn what_is_not_there_is_a_page_that_says_so() {
    let coordinator = TestCoordinator::start(config());
    let response = coordinator.get("/jobs/01a217f3-16da-73c8-80fe-4b9068aec5a7").await;
    assert_eq!(response.status(), 404);
    assert!(response.text().await.expect("text").contains("There is no job 01a217f3"));
}

#[tokio::test]
async fn a_browser_gets_a_page_where_nothing_is_and_a_program_the_problem() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let coordinator = TestCoordinator::start(config());
    let ask = async |method: Method, path: &str, accept: &str| {
        let request = coordinator.client.request(method, format!("http://{}{path}", coordinator.public));
        request.header(header::ACCEPT, accept).send().await.expect("an answer")
    };
    for (path, status, words) in [
        ("/nosuch", 404, "There is nothing at /nosuch."),
        ("/v1/nosuch?a=1", 404, "There is nothing at /v1/nosuch."),
        ("/jobs/one/two/three", 404, "href=\"/jobs\""),
        ("/jobs/nothing", 404, "href=\"/jobs\""),
        ("/sign-out", 405, "This path takes POST only."),
    ] {
        let response = ask(Method::GET, path, BROWSER).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(response.headers()[header::CONTENT_TYPE].to_str().expect("text").starts_with("text/html"), "{path}");
        assert_eq!(response.headers().get(header::ALLOW).is_some(), status == 405, "{path}");
        let html = response.text().await.expect("text");
        assert!(html.contains(words) && html.contains("<nav aria-label=\"Pages\""), "{path} {html}");
    }
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.5"] {
        let told = problem(ask(Method::GET, "/nosuch", accept).await, 404).await;
        assert_eq!(told.detail, "there is nothing at /nosuch");
    }
    // A form of a page that is no more is answered as before, and so is what is wrong with the interface.
    problem(ask(Method::POST, "/nosuch", BROWSER).await, 404).await;
    problem(ask(Method::GET, "/v1/jobs/nothing", BROWSER).await, 404).await;
    let off = TestCoordinator::start(coordinator::config::Config { dashboard: Switch::Off, ..config() });
    let request = off.client.get(format!("http://{}/nosuch", off.public)).header(header::ACCEPT, BROWSER);
    problem(request.send().await.expect("an answer"), 404).await;
}

#[tokio::test]
async fn a_question_comes_before_a_job_is_canceled_or_a_worker_drained() {
    let coordinator = TestCoordinator::start(config());
    let job = coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": 1}})).await;
    let page = async |path: &str| coordinator.get(path).await.text().await.expect("text");
    let question = page(&format!("/jobs/{}/cancel", job.id)).await;
    assert!(question.contains("Cancel job?") && question.contains("Tasks done so far: 0 of 1."), "{question}");
    assert_eq!(
        read::<api::Job>(coordinator.get(&format!("/v1/jobs/{}", job.id)).await, 200).await.state,
        JobState::Queued
    );
    assert!(page(&format!("/jobs/{}/resume", job.id)).await.contains("there is nothing to resume"));
    assert_eq!(coordinator.get(&format!("/jobs/{}/explode", job.id)).await.status(), 404);
    let _worker = coordinator.add_real_worker("one", 1, Labels::new()).await;
    assert!(page("/grid/workers/one/drain").await.contains("until its process is started again"));
    assert_eq!(coordinator.state_of("one").await, api::WorkerState::Ready);
    assert_eq!(coordinator.get("/grid/workers/two/drain").await.status(), 404);
}

#[tokio::test]
async fn a_form_that_comes_again_with_other_values_is_shown_again_for_another_job() {
    let coordinator = TestCoordinator::start(config());
    let post = async |seconds: u32, key: &str| {
        let form = format!("kind=sleep&p.seconds={seconds}&priority=5&key={key}");
        let request = coordinator.client.post(format!("http://{}/submit", coordinator.public)).body(form);
        request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await.expect("an answer")
    };
    let first = post(1, "a").await;
    assert_eq!(first.status(), 303);
    assert_eq!(post(1, "a").await.headers()[header::LOCATION], first.headers()[header::LOCATION], "sent twice");
    let again = post(2, "a").await;
    assert_eq!(again.status(), 422);
    let html = again.text().await.expect("text");
    assert!(html.contains("was sent before with other values"), "{html}");
    let key = html.split_once("name=\"key\" value=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a key").0;
    assert_eq!(post(2, key).await.status(), 303);
}

#[tokio::test]
async fn a_dashboard_that_is_off_leaves_the_interface_alone() {
    let coordinator = TestCoordinator::start(coordinator::config::Config { dashboard: Switch::Off, ..config() });
    for path in ["/", "/jobs", "/sign-in", "/live"] {
        assert_eq!(coordinator.get(path).await.status(), 404, "{path}");
    }
    assert_eq!(coordinator.get("/v1/stats").await.status(), 200);
}

#[tokio::test]
async fn a_drained_worker_ends_what_it_holds_and_gets_nothing_more() {
    let coordinator = TestCoordinator::start(config());
    let _worker = coordinator.add_real_worker("one", 1, Labels::new()).await;
    assert!(coordinator.get("/grid/workers").await.text().await.expect("text").contains("Drain one"));
    assert_eq!(coordinator.post("/workers/one/drain", &serde_json::Value::Null).await.status(), 204);
    assert_eq!(coordinator.state_of("one").await, api::WorkerState::Draining);
    let job = coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": 0}})).await;
    let explanation: api::Explanation = read(coordinator.get(&format!("/v1/jobs/{}/explain", job.id)).await, 200).await;
    assert!(explanation.reasons[0].contains("no worker"), "{explanation:?}");
    assert_eq!(coordinator.post("/workers/two/drain", &serde_json::Value::Null).await.status(), 404);
}

#[tokio::test]
async fn statistics_show_what_has_ended() {
    let coordinator = TestCoordinator::start(config());
    let _worker = coordinator.add_real_worker("one", 1, Labels::new()).await;
    let job = coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": 0, "tasks": 7}})).await;
    coordinator.job_in(job.id, JobState::Succeeded).await;
    let html = coordinator.get("/statistics?grain=minute&kind=sleep").await.text().await.expect("text");
    assert!(html.contains("7 succeeded, 0 failed") && html.contains("id=\"kind-sleep\""), "{html}");
    for (query, told) in [("grain=decade", "Grain must be"), ("kind=nope", "Kind must be one of")] {
        let refused = coordinator.get(&format!("/statistics?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}");
        let html = refused.text().await.expect("text");
        assert!(html.contains(told) && html.contains("href=\"/statistics\">To the statistics"), "{html}");
    }
}

#[tokio::test]
async fn the_task_stream_has_the_leases_of_pushed_and_pulling_workers() {
    let coordinator = TestCoordinator::start(config());
    let _worker = coordinator.add_real_worker("one", 1, Labels::new()).await;
    let pushed = coordinator.submit(&json!({"kind": "sleep", "params": {"seconds": 0}})).await;
    coordinator.job_in(pushed.id, JobState::Succeeded).await;
    coordinator.submit(&json!({"kind": "tasks", "params": {"list": [1, 2]}})).await;
    let claimed = coordinator.claimed("puller", &json!({})).await;
    coordinator.fail(&claimed, "on purpose").await;
    let stream: serde_json::Value = read(coordinator.get("/task-stream/data?seconds=30").await, 200).await;
    let rows: Vec<_> = stream["rows"].as_array().expect("rows").iter().collect();
    let of = |name: &str| rows.iter().find(|row| row["worker"] == name).expect("a row");
    assert_eq!((&of("one")["leases"], &of("one")["failed"]), (&json!(1), &json!(0)));
    assert_eq!((&of("puller")["leases"], &of("puller")["failed"]), (&json!(1), &json!(1)));
    assert_eq!(stream["is_aggregated"], json!(false));
}

#[tokio::test]
async fn a_lease_goes_on_in_the_task_stream_after_an_invalid_report_of_a_pulling_worker() {
    let coordinator = TestCoordinator::start(config());
    coordinator.submit(&json!({"kind": "tasks", "params": {"list": [1, 2]}})).await;
    let claimed = coordinator.claimed("puller", &json!({"max_tasks": 2})).await;
    let stream = async || {
        let stream: serde_json::Value = read(coordinator.get("/task-stream/data?seconds=30").await, 200).await;
        (stream["rows"][0]["leases"].clone(), stream["rows"][0]["failed"].clone())
    };
    let report = coordinator.report(&claimed, "complete", &json!({"results": [1]})).await;
    assert_eq!(report.status(), 400, "a result is missing");
    assert_eq!(stream().await, (json!(0), json!(0)));
    coordinator.complete(&claimed, &json!([1, 2])).await;
    assert_eq!(stream().await, (json!(1), json!(0)));
}

#[tokio::test]
async fn a_lease_whose_rest_went_back_has_the_tasks_that_it_kept_in_the_task_stream() {
    let coordinator = TestCoordinator::start(config());
    coordinator.submit(&json!({"kind": "tasks", "params": {"list": [1, 2, 3]}})).await;
    let claimed = coordinator.claimed("puller", &json!({"max_tasks": 3})).await;
    assert_eq!(coordinator.report(&claimed, "release", &json!({"beyond": 1})).await.status(), 204);
    let stream: serde_json::Value = read(coordinator.get("/task-stream/data?seconds=30").await, 200).await;
    // A bar ends with its number of tasks.
    assert_eq!(stream["bars"][0][8], json!(1));
}

#[tokio::test]
async fn a_simulation_of_several_priorities_names_all_its_jobs_and_starts_once_for_a_key() {
    let coordinator = TestCoordinator::start(config());
    let form = "kind=simulation&tasks=4&seconds=0&workers=2&priorities=1,9&key=6ee56ea2-79c9-4b2c-8a9f-25a5c2a0e0a1";
    let post = async || {
        let request = coordinator.client.post(format!("http://{}/submit", coordinator.public)).body(form);
        let response = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await;
        response.expect("an answer").headers()[header::LOCATION].to_str().expect("text").to_owned()
    };
    let location = post().await;
    let (list, ids) = location.split_once("&submitted=").expect("ids");
    assert_eq!(list, "/jobs?tag=simulation%3Atrue");
    let ids: Vec<model::JobId> = ids.split(',').map(|id| model::JobId(id.parse().expect("an id"))).collect();
    assert_eq!(ids.len(), 2);
    for id in &ids {
        coordinator.job_in(*id, JobState::Succeeded).await;
    }
    assert_eq!(post().await, location, "the same jobs");
    let stats: serde_json::Value = read(coordinator.get("/v1/stats").await, 200).await;
    assert_eq!(stats["jobs"], json!({}), "nothing was started anew");
}

#[tokio::test]
async fn a_simulation_that_comes_again_with_other_values_leaves_the_jobs_of_the_first_alone() {
    let coordinator = TestCoordinator::start(config());
    let post = async |tasks: u32| {
        let form = format!(
            "kind=simulation&tasks={tasks}&seconds=3600&workers=2&priorities=1,9&key=6ee56ea2-79c9-4b2c-8a9f-25a5c2a0e0a1"
        );
        let request = coordinator.client.post(format!("http://{}/submit", coordinator.public)).body(form);
        request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await.expect("an answer")
    };
    let location = post(4).await.headers()[header::LOCATION].to_str().expect("text").to_owned();
    let (_, ids) = location.split_once("&submitted=").expect("ids");
    // The job of the higher priority has two tasks again, and the other one has one.
    assert_eq!(post(3).await.status(), 422);
    for id in ids.split(',') {
        let job = coordinator.job(model::JobId(id.parse().expect("an id"))).await;
        assert!(!job.state.is_over(), "{job:?}");
    }
}

#[tokio::test]
async fn the_overview_tells_of_failures_once_for_a_reason_and_of_work_that_no_worker_runs() {
    let coordinator = TestCoordinator::start(config());
    let one_task = json!({"max_tasks": 1});
    let mut claimed = Vec::new();
    for tasks in [1, 1, 2] {
        coordinator.submit(&with(numbered_tasks(tasks), &json!({"max_attempts": 1}))).await;
        claimed.push(coordinator.claimed("puller", &one_task).await);
    }
    // The third job fails first, and the second one for the reason of the first one.
    for place in [2, 0, 1] {
        coordinator.fail(&claimed[place], "on purpose").await;
        if place == 2 {
            let rest = coordinator.claimed("puller", &one_task).await;
            coordinator.complete(&rest, &json!([1])).await;
        }
        coordinator.job_in(claimed[place].job, JobState::Failed).await;
    }
    let requires = json!({"requires": {"labels": {"gpu": "yes"}}});
    coordinator.submit(&with(numbered_tasks(2), &requires)).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let html = coordinator.get("/").await.text().await.expect("text");
        let place = |claimed: &api::Claimed| html.find(&format!("attention-failed-{}", claimed.job));
        if html.contains("2 tasks of tasks") && html.contains("gpu=yes") && html.contains(">1 more</a>") {
            let [first, second, third] = [&claimed[0], &claimed[1], &claimed[2]].map(place);
            assert!(first.is_none() && second.is_some() && second < third, "{html}");
            let listed = html.split_once("id=\"needs\"").expect("a list").1.split_once("</ul>").expect("its end").0;
            // The disk of the machine may be almost full.
            let about_jobs = listed.split("<li id=").skip(1).filter(|item| !item.starts_with("\"attention-disk\""));
            assert_eq!(about_jobs.count(), 3, "{listed}");
            return;
        }
        // A snapshot lasts for a second.
        assert!(std::time::Instant::now() < deadline, "{html}");
        pause().await;
    }
}

#[tokio::test]
async fn the_slots_of_simulated_workers_are_among_those_of_the_overview() {
    let coordinator = TestCoordinator::start(config());
    let simulation = json!({"tasks": 9, "seconds": 3_600, "workers": 3});
    let started: SimulationStarted = read(coordinator.post("/v1/simulate", &simulation).await, 201).await;
    coordinator.job_when(started.jobs[0].id, |job| job.tasks.running == 3).await;
    let since = Instant::now();
    loop {
        let html = coordinator.get("/").await.text().await.expect("text");
        if html.contains("3<span class=\"of\"> / 3</span>") && html.contains("3 simulated") {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{html}");
        pause().await;
    }
}
