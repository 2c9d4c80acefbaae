//! Invalid requests get a problem that names the allowed values.

use crate::helpers::{TestCoordinator, config, problem};

#[actix_web::test]
async fn a_wrong_parameter_is_named_with_what_is_allowed() {
    let grid = TestCoordinator::start(config());
    let allowed = "an integer from 0 to 18446744073709551615 (2^64-1)";
    for (query, field, detail) in [
        ("", "a", format!("a is missing: give a={allowed}")),
        ("?a=1", "b", format!("b is missing: give b={allowed}")),
        ("?a=1&a=1&b=2", "a", format!("a is given more than once: give it once, {allowed}")),
        ("?a=x&b=2", "a", format!("a must be {allowed}, but is \"x\"")),
        ("?a=-1&b=2", "a", format!("a must be {allowed}, but is \"-1\"")),
        ("?a=1.5&b=2", "a", format!("a must be {allowed}, but is \"1.5\"")),
        ("?a=0&b=18446744073709551616", "b", format!("b must be {allowed}, but is larger: 18446744073709551616")),
        ("?a=3&b=2", "a", "a must not be above b, but 3 is above 2".to_owned()),
    ] {
        let problem = problem(grid.get(&format!("/sum-of-primes{query}")).await, 400).await;
        assert_eq!((problem.field.as_deref(), problem.detail), (Some(field), detail), "{query}");
    }
}

#[actix_web::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_with_what_is_allowed() {
    let grid = TestCoordinator::start(config());
    for path in ["/nothing", "/docs/nothing"] {
        assert_eq!(problem(grid.get(path).await, 404).await.detail, format!("there is nothing at {path}"));
    }
    let url = format!("http://{}/sum-of-primes?a=1&b=2", grid.public);
    let response = grid.client.post(url).send().await.expect("an answer");
    assert_eq!(response.headers()["allow"], "GET, HEAD");
    assert_eq!(problem(response, 405).await.detail, "this path takes GET, HEAD only");
}

#[actix_web::test]
async fn a_path_with_a_part_that_is_no_id_or_number_gets_a_problem() {
    let grid = TestCoordinator::start(config());
    let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
    for path in [
        format!("/worker/outputs/{id}/x/0"),
        format!("/worker/outputs/{id}/{id}/-1"),
        format!("/worker/logs/{id}/first/{id}"),
        format!("/worker/logs/{id}/0/x"),
    ] {
        let request = grid.client.put(format!("http://{}{path}", grid.internal)).json(&serde_json::json!({}));
        let refused = problem(request.send().await.expect("an answer"), 404).await;
        assert_eq!(refused.detail, format!("there is nothing at {path}"));
    }
}

#[actix_web::test]
async fn a_log_that_begins_further_on_than_any_can_is_refused() {
    let grid = TestCoordinator::start(config());
    let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
    let url = format!("http://{}/worker/logs/{id}/0/{id}", grid.internal);
    for (offset, is_taken) in [(1_u64 << 53, true), ((1 << 53) + 1, false), (u64::MAX, false)] {
        let report = serde_json::json!({"worker": "one", "offset": offset, "text": "text", "is_final": false});
        let answer = grid.client.put(&url).json(&report).send().await.expect("an answer");
        if is_taken {
            assert_eq!(answer.status(), 204);
            continue;
        }
        let refused = problem(answer, 400).await;
        let why = format!("the body is not valid: offset must be at most 9007199254740992, but is {offset}");
        assert_eq!((refused.field.as_deref(), refused.detail), (Some("offset"), why));
    }
}

#[actix_web::test]
async fn workers_that_ask_for_a_job_that_is_gone_are_told_so() {
    let grid = TestCoordinator::start(config());
    let id = "0198f0a2-7d3c-7c1e-8a55-0123456789ab";
    for path in ["inputs?first=0&beyond=1", "outputs"] {
        let gone = problem(grid.get_internal(&format!("/worker/jobs/{id}/{path}")).await, 404).await;
        assert_eq!(gone.detail, format!("there is no job {id}"));
    }
    let url = format!("http://{}/worker/register/x?boot_id=x", grid.internal);
    let refused = problem(grid.client.delete(url).send().await.expect("an answer"), 400).await;
    assert_eq!(refused.detail, "boot_id must be a UUID, but is \"x\"");
    let url = format!("http://{}/worker/outputs/{id}/{id}/0?bytes=1&text=true&sha256=x", grid.internal);
    let refused = problem(grid.client.put(url).send().await.expect("an answer"), 400).await;
    assert_eq!(refused.detail, "sha256 must be a SHA-256: 64 hexadecimal digits");
}

#[actix_web::test]
async fn the_public_port_knows_nothing_of_registration_and_metrics() {
    let grid = TestCoordinator::start(config());
    for path in ["/worker/register/x", "/metrics"] {
        problem(grid.get(path).await, 404).await;
    }
}
