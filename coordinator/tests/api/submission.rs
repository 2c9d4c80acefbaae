//! Jobs are accepted once, for good, and refused with the field that is wrong.

use api::Job;
use model::{JobState, Labels};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::helpers::{TestCoordinator, config, numbered_tasks, problem, read, sleeps, with};

const RANGE: &str = r#"{"kind":"sum-of-primes","params":{"a":1,"b":10}}"#;

#[actix_web::test]
async fn an_accepted_job_is_told_as_it_was_asked_for() {
    let grid = TestCoordinator::start(config());
    let asked = json!({
        "kind": "count-primes",
        "params": {"a": 3, "b": 30_000_000, "algorithm": "sieve"},
        "priority": 8,
        "tags": {"team": "blue", "": "no"},
        "max_attempts": 2,
    });
    assert_eq!(problem(grid.post("/v1/jobs", &asked).await, 400).await.field.as_deref(), Some("tags"));
    let asked = with(
        asked,
        &json!({
            "tags": {"team": "blue"},
            "affinity": {"labels": {"zone": "a"}, "key": "model-7"},
            "requires": {"labels": {"gpu": "yes"}, "cpus": 2, "memory_bytes": 1024},
            "timeout": {"task_seconds": 60, "job_seconds": 600},
            "output": "primes.json",
        }),
    );
    let response = grid.post("/v1/jobs", &asked).await;
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let job: Value = read(response, 201).await;
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().expect("an id")));
    for (field, value) in asked.as_object().expect("an object") {
        assert_eq!(&job[field], value, "{field}");
    }
    assert_eq!(job["state"], "queued");
    assert_eq!(job["tasks"], json!({"total": 12, "pending": 12, "running": 0, "succeeded": 0, "failed": 0}));
    assert_eq!(job["progress"], json!({"fraction": 0.0, "numbers_done": 0}));
    assert_eq!(job["attempts"], 0);
    assert!(job["submitted_at"].is_string() && job["started_at"].is_null() && job["finished_at"].is_null(), "{job}");
    assert_eq!(read::<Value>(grid.get(&location).await, 200).await, job);
}

#[actix_web::test]
async fn what_a_job_does_not_say_has_a_default() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&sleeps(0.0, 1)).await;
    assert_eq!((job.priority.get(), job.max_attempts.get(), job.tags), (5, 4, Labels::new()));
    assert_eq!((job.requires, job.affinity, job.timeout, job.output), Default::default());
}

#[actix_web::test]
async fn a_share_to_verify_is_shown_and_refused_where_nothing_adds_up() {
    let grid = TestCoordinator::start(config());
    let range = json!({"kind": "count-primes", "params": {"a": 1, "b": 9}});
    let job: Value = read(grid.post("/v1/jobs", &with(range.clone(), &json!({"verify": 0.05}))).await, 201).await;
    let figures =
        json!({"share": 0.05, "compared_leases": 0, "waiting_leases": 0, "mismatches": 0, "recomputed_tasks": 0});
    assert_eq!(job["verification"], figures);
    for wrong in [with(range.clone(), &json!({"verify": 0})), with(range, &json!({"verify": 1.5}))] {
        assert!(problem(grid.post("/v1/jobs", &wrong).await, 400).await.detail.contains("from 0.000001 to 1"));
    }
    let sleep = with(sleeps(0.0, 1), &json!({"verify": 0.5}));
    assert_eq!(problem(grid.post("/v1/jobs", &sleep).await, 400).await.field.as_deref(), Some("verify"));
}

#[actix_web::test]
async fn an_accepted_job_is_there_after_a_restart() {
    let grid = TestCoordinator::start(config());
    let asked = with(numbered_tasks(3), &json!({"tags": {"a": "b"}, "priority": 9, "output": "x"}));
    let job = grid.submit(&asked).await;
    let grid = grid.restart(config()).await;
    let after = grid.job(job.id).await;
    let told = |job: &Job| serde_json::to_value(job).expect("JSON");
    assert_eq!(told(&after), told(&job));
    let claimed = grid.claimed("one", &json!({"max_tasks": 10})).await;
    let payloads: Vec<_> = claimed.tasks.iter().map(|task| task.payload.get()).collect();
    assert_eq!(payloads, ["0", "1", "2"]);
}

#[actix_web::test]
async fn a_put_job_is_accepted_once_under_its_own_id() {
    let grid = TestCoordinator::start(config());
    let id = "0198c5f0-0000-7000-8000-000000000001";
    let put = |body: &'static str| {
        grid.client
            .put(format!("http://{}/v1/jobs/{id}", grid.public))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let response = put(RANGE).await.expect("an answer");
    assert_eq!(response.headers()["location"], format!("/v1/jobs/{id}"));
    let job: Job = read(response, 201).await;
    assert_eq!(job.id.to_string(), id);
    let again = put(RANGE).await.expect("an answer");
    assert_eq!(again.headers()["location"], format!("/v1/jobs/{id}"));
    assert_eq!(read::<Job>(again, 200).await.id, job.id);
    problem(put(r#"{"kind":"sum-of-primes","params":{"a":1,"b":11}}"#).await.expect("an answer"), 422).await;
    let grid = grid.restart(config()).await;
    let put = |body: &'static str| {
        grid.client
            .put(format!("http://{}/v1/jobs/{id}", grid.public))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    assert_eq!(put(RANGE).await.expect("an answer").status(), StatusCode::OK);
    let url = format!("http://{}/v1/jobs/mine", grid.public);
    problem(
        grid.client.put(url).header("content-type", "application/json").body(RANGE).send().await.expect("an answer"),
        404,
    )
    .await;
}

#[actix_web::test]
async fn a_request_under_a_known_name_answers_the_same_job() {
    let grid = TestCoordinator::start(config());
    let post = |key: &str, body: &'static str| {
        let request = grid.client.post(format!("http://{}/v1/jobs", grid.public));
        request.header("Idempotency-Key", key).header("content-type", "application/json").body(body).send()
    };
    let first: Job = read(post("mine", RANGE).await.expect("an answer"), 201).await;
    let again = post("mine", RANGE).await.expect("an answer");
    assert_eq!(again.headers()["location"], format!("/v1/jobs/{}", first.id));
    assert_eq!(read::<Job>(again, 200).await.id, first.id);
    let other = post("mine", r#"{"kind":"sum-of-primes","params":{"a":1,"b":11}}"#).await.expect("an answer");
    let detail = problem(other, 422).await.detail;
    assert!(detail.contains(&first.id.to_string()), "{detail}");
    let second: Job = read(post("yours", RANGE).await.expect("an answer"), 201).await;
    assert_ne!(second.id, first.id);
    for key in ["", &"x".repeat(257)] {
        let refused = problem(post(key, RANGE).await.expect("an answer"), 400).await;
        assert_eq!(refused.field.as_deref(), Some("Idempotency-Key"));
    }
    // Its client would look for the job of its own id in vain.
    let own = format!("http://{}/v1/jobs/{}", grid.public, uuid::Uuid::from_u128(7));
    let put = grid.client.put(own).header("Idempotency-Key", "mine").header("content-type", "application/json");
    let refused = problem(put.body(RANGE).send().await.expect("an answer"), 422).await;
    assert!(refused.detail.ends_with("has the same idempotency key and another id"), "{}", refused.detail);
    let twice = grid.client.post(format!("http://{}/v1/jobs", grid.public)).header("Idempotency-Key", "mine");
    let twice = twice.header("Idempotency-Key", "yours").header("content-type", "application/json").body(RANGE).send();
    let refused = problem(twice.await.expect("an answer"), 400).await;
    assert_eq!(refused.detail, "Idempotency-Key is given more than once: give it once");
    // Many at once are one job.
    let many = futures_util::future::join_all((0..8).map(|_| post("crowd", RANGE))).await;
    let mut statuses: Vec<_> = many.into_iter().map(|answer| answer.expect("an answer").status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
}

#[actix_web::test]
async fn a_job_in_other_words_is_the_same_under_its_key() {
    let grid = TestCoordinator::start(config());
    let post = |body: &'static str| {
        let request = grid.client.post(format!("http://{}/v1/jobs", grid.public));
        request.header("Idempotency-Key", "mine").header("content-type", "application/json").body(body).send()
    };
    let first = post(r#"{"kind":"sleep","params":{"seconds":1}}"#).await.expect("an answer");
    let first: Job = read(first, 201).await;
    for same in [
        r#"{"kind":"sleep","params":{"seconds":1.0}}"#,
        r#"{"params":{"tasks":1,"fail_rate":0.0,"seconds":1},"kind":"sleep","priority":5}"#,
    ] {
        assert_eq!(read::<Job>(post(same).await.expect("an answer"), 200).await.id, first.id, "{same}");
    }
    problem(post(r#"{"kind":"sleep","params":{"seconds":1.5}}"#).await.expect("an answer"), 422).await;
}

#[actix_web::test]
async fn a_wrong_field_is_named_with_what_is_allowed() {
    let grid = TestCoordinator::start(config());
    let long = "x".repeat(257);
    let many: Labels = (0..33).map(|n| (n.to_string(), String::new())).collect();
    for (fields, field, detail) in [
        (json!({"kind": "sum"}), "kind", "must be one of sum-of-primes, "),
        (json!({"kind": 1}), "kind", "kind must be a string, but is 1 (line 1, column "),
        (json!({"priority": 0}), "priority", "must be a whole number from 1 to 9, but is 0"),
        (json!({"priority": 10}), "priority", "must be a whole number from 1 to 9, but is 10"),
        (json!({"priority": "high"}), "priority", "priority must be a whole number from 1 to 9, but is \"high\""),
        (json!({"max_attempts": 0}), "max_attempts", "must be a whole number from 1 to 100, but is 0"),
        (json!({"max_attempts": 101}), "max_attempts", "must be a whole number from 1 to 100, but is 101"),
        (json!({"timeout": {"job_seconds": 0}}), "timeout.job_seconds", "must be a whole number from 1 to"),
        (json!({"timeout": [5, 5]}), "timeout", "timeout must be an object, but is an array"),
        (json!({"timeout": {"task_seconds": 1.5}}), "timeout.task_seconds", "but is 1.5"),
        (json!({"requires": {"cpus": -1}}), "requires.cpus", "but is -1"),
        (json!({"tags": {"a": 1}}), "tags.a", "tags.a must be a string, but is 1"),
        (json!({"tags": {"app:name": "x"}}), "tags", "must have no ':' or '=' in a key, as \"app:name\" has"),
        (json!({"tags": {"app=name": "x"}}), "tags", "must have no ':' or '=' in a key"),
        (json!({"tags": {"a": long}}), "tags", "values of at most 256"),
        (json!({"tags": many}), "tags", "holds at most 32"),
        (json!({"affinity": {"labels": {"a": "\n"}}}), "affinity", "without control characters"),
        (json!({"affinity": {"key": ""}}), "affinity", "key has 1 to 256 bytes"),
        (json!({"requires": {"labels": {"": "x"}}}), "requires", "keys of 1 to 256 bytes"),
        (json!({"output": "../x"}), "output", "does not begin with a dot"),
        (json!({"output": ""}), "output", "has 1 to 200 of"),
        (json!({"params": {"a": 2, "b": 1}}), "params", "a must not be above b"),
        (json!({"params": {"a": -1, "b": 1}}), "params", "-1"),
        (json!({"params": {"a": 1}}), "params", "b is missing"),
        (json!({"params": {"a": 1, "b": 2, "c": 3}}), "params", "c is no field here: this object takes a, b"),
        (json!({"params": []}), "params", "params must be an object, but is an array"),
        (json!({"params": [1, 10]}), "params", "params must be an object, but is an array"),
        (json!({"kind": "sleep", "params": [0.5]}), "params", "params must be an object, but is an array"),
        (json!({"nonsense": 1}), "nonsense", "nonsense is no field here: this object takes kind, params, priority"),
        (json!({"kind": "sleep", "params": {"seconds": -1}}), "params", "seconds must be from 0 to 86400"),
        (json!({"kind": "sleep", "params": {"seconds": 86401}}), "params", "seconds must be from 0 to 86400"),
        (json!({"kind": "sleep", "params": {"seconds": 1, "fail_rate": 2}}), "params", "fail_rate must be from 0 to 1"),
        (
            json!({"kind": "sleep", "params": {"seconds": 1, "tasks": 0}}),
            "params",
            "tasks must be a whole number from 1 to 10000000, but is 0",
        ),
        (json!({"kind": "tasks", "params": {"list": []}}), "params", "list must hold at least one payload"),
        (json!({"kind": "tasks", "params": {}}), "params", "list is missing"),
    ] {
        let body = with(serde_json::from_str(RANGE).expect("JSON"), &fields);
        let problem = problem(grid.post("/v1/jobs", &body).await, 400).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{fields}: {}", problem.detail);
        assert!(problem.detail.contains(detail), "{fields}: {}", problem.detail);
    }
    assert_eq!(read::<Value>(grid.get("/v1/jobs").await, 200).await, json!({"jobs": []}));
}

#[actix_web::test]
async fn what_is_given_twice_is_named_and_not_taken_from_the_last() {
    let grid = TestCoordinator::start(config());
    for (rest, field, detail) in [
        (r#""tags": {"a": "1", "b": "1", "a": "2"}"#, "tags", "tags must have each key once, but has a twice"),
        (
            r#""requires": {"labels": {"a": "1", "a": "2"}}"#,
            "requires.labels",
            "must have each key once, but has a twice",
        ),
        (
            r#""affinity": {"labels": {"a": "1", "a": "2"}}"#,
            "affinity.labels",
            "must have each key once, but has a twice",
        ),
        (r#""priority": 1, "priority": 9"#, "priority", "priority is given more than once: give it once"),
        (r#""timeout": {"job_seconds": 1, "job_seconds": 2}"#, "timeout.job_seconds", "is given more than once"),
    ] {
        let body = format!(r#"{{"kind": "sleep", "params": {{"seconds": 0}}, {rest}}}"#);
        let request = grid.client.post(format!("http://{}/v1/jobs", grid.public)).body(body);
        let answer = request.header("content-type", "application/json").send().await.expect("an answer");
        let problem = problem(answer, 400).await;
        assert_eq!(problem.field.as_deref(), Some(field), "{}", problem.detail);
        assert!(problem.detail.contains(detail), "{}", problem.detail);
    }
    let program = json!({"kind": "program", "params": "PARAMS"}).to_string();
    let params = r#"{"program": "p", "args": [[]], "env": {"A": "1", "A": "2"}}"#;
    let request =
        grid.client.post(format!("http://{}/v1/jobs", grid.public)).body(program.replace("\"PARAMS\"", params));
    let answer = request.header("content-type", "application/json").send().await.expect("an answer");
    let detail = problem(answer, 400).await.detail;
    assert_eq!(detail, "params env must have each key once, but has A twice");
}

#[actix_web::test]
async fn a_body_that_is_no_job_is_refused() {
    let small = coordinator::config::Config { max_job_bytes: 1_000, ..config() };
    let grid = TestCoordinator::start(small);
    let post = |body: String| {
        grid.client
            .post(format!("http://{}/v1/jobs", grid.public))
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    for body in ["", "x", "[]", "{}", "null", r#"{"kind":"sleep"}"#, "{\"kind\":\"sleep\",\"kind\":\"sleep\"}"] {
        problem(post(body.to_owned()).await.expect("an answer"), 400).await;
    }
    let long = format!("{RANGE}{}", " ".repeat(1_000));
    assert_eq!(problem(post(long).await.expect("an answer"), 413).await.detail, "the body is longer than 1000 bytes");
    assert_eq!(post(RANGE.to_owned()).await.expect("an answer").status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn a_job_that_nobody_can_run_says_so_until_somebody_can() {
    let grid = TestCoordinator::start(config());
    let job = grid.submit(&with(sleeps(0.0, 1), &json!({"requires": {"labels": {"gpu": "yes"}}}))).await;
    assert_eq!(job.notice.as_deref(), Some("no worker is ready"));
    let _plain = grid.add_real_worker("plain", 1, Labels::new()).await;
    let notice = grid.job(job.id).await.notice.expect("a notice");
    assert!(notice.starts_with("the only ready worker does not run sleep with what the job requires"), "{notice}");
    let explained: Value = read(grid.get(&format!("/v1/jobs/{}/explain", job.id)).await, 200).await;
    assert_eq!(explained, json!({"state": "queued", "reasons": [notice]}));
    let _fitting = grid.add_real_worker("fitting", 1, crate::helpers::labels(&[("gpu", "yes")])).await;
    let job = grid.job_in(job.id, JobState::Succeeded).await;
    assert_eq!(job.notice, None);
    assert_eq!(grid.tasks(job.id, "").await[0].worker.as_ref().expect("a worker").as_str(), "fitting");
}
