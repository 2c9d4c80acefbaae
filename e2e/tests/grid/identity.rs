//! Workers that show the token of a service account, about which the coordinator asks the API server of Kubernetes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::helpers::{Answer, ApiServer, Coordinator, Worker, account_token, eventually, published_sum, request};

const ACCOUNT: &str = "divvy:divvy-worker";
const ACCOUNTS: (&str, &str) = ("DIVVY_WORKER_SERVICE_ACCOUNTS", ACCOUNT);

/// An age that tests can wait for.
const SHORT_AGE: (&str, &str) = ("DIVVY_WORKER_REVIEW_AGE_MS", "2000");

const HEARTBEAT: &str = r#"{"port":1,"boot_id":"00000000-0000-4000-8000-000000000001","slots":1,"running":0,
    "cpu_load":0.0,"free_memory_bytes":0,"version":"0"}"#;
const CLAIM: &str = r#"{"worker_id":"puller","kinds":["tasks"]}"#;

fn start(server: &ApiServer, more: &[(&str, &str)]) -> Coordinator {
    let variables = server.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Coordinator::start(&[&variables[..], &[ACCOUNTS], more].concat())
}

fn register(coordinator: &Coordinator, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    request(coordinator.internal, "PUT", "/worker/register/mine", &[("authorization", &bearer)], HEARTBEAT)
}

#[test]
fn a_worker_with_the_token_of_its_service_account_computes_and_a_renewed_token_is_shown() {
    let mut server = ApiServer::start();
    let (first, second) = (account_token(ACCOUNT, "divvy", 3600), account_token(ACCOUNT, "divvy", 3600));
    server.accept(&first, ACCOUNT, "divvy");
    let file = server.file("worker-token");
    fs::write(&file, &first).expect("write a token");
    let coordinator = start(&server, &[SHORT_AGE]);
    let worker = Worker::join(&coordinator, &[("DIVVY_WORKER_TOKEN_FILE", file.to_str().expect("UTF-8"))]);
    assert_eq!(coordinator.sum(1, 10_u64.pow(6)).sum(), published_sum(6));
    server.accept(&second, ACCOUNT, "divvy");
    fs::write(&file, &second).expect("write a token");
    worker.logged("the token was read again");
    let is_second = |request: &Value| request["body"]["spec"]["token"] == second.as_str();
    eventually("the renewed token is looked at", || server.requests().iter().any(is_second).then_some(()));
    server.forget(&first);
    // Longer than anything about the first token is good.
    let refusals = || coordinator.metric(r#"divvy_token_reviews_total{outcome="refused"}"#);
    let until = Instant::now() + Duration::from_secs(3);
    eventually("heartbeats go on", || {
        assert!(coordinator.find(&worker.boot_id).is_some(), "the worker is gone");
        (Instant::now() > until).then_some(())
    });
    assert_eq!(refusals(), 0.0);
    for (name, log) in [("coordinator", coordinator.log()), ("worker", worker.log())] {
        assert!(log.iter().all(|line| !line.contains(&first) && !line.contains(&second)), "{name}");
    }
}

#[test]
fn the_shared_token_goes_on_beside_service_accounts_and_no_token_is_refused() {
    let server = ApiServer::start();
    let coordinator = start(&server, &[("DIVVY_WORKER_TOKEN", "correct-horse")]);
    assert_eq!(register(&coordinator, "correct-horse").status, 200);
    assert_eq!(request(coordinator.internal, "PUT", "/worker/register/other", &[], HEARTBEAT).status, 401);
    for wrong in ["correct-hors", "", "a.b.c"] {
        register(&coordinator, wrong).problem(401);
    }
    assert!(server.requests().is_empty(), "what is no token of an account is not worth a question");
}

#[test]
fn a_token_that_is_not_for_this_service_is_refused_and_the_reason_is_told() {
    let mut server = ApiServer::start();
    let coordinator = start(&server, &[]);
    let refused = |token: &str, why: &str| {
        let message = register(&coordinator, token).problem(401);
        assert!(message.contains(why) && !message.contains(token), "{message}");
        let bearer = format!("Bearer {token}");
        request(coordinator.internal, "POST", "/v1/worker/claim", &[("authorization", &bearer)], CLAIM).problem(401);
    };
    refused(&account_token(ACCOUNT, "other", 3600), "it is not for the audience \"divvy\"");
    refused(&account_token("divvy:default", "divvy", 3600), "not one of DIVVY_WORKER_SERVICE_ACCOUNTS");
    refused(&account_token(ACCOUNT, "divvy", -1), "it has expired");
    assert!(server.requests().is_empty());
    // The claims of a token are not trusted.
    refused(&account_token(ACCOUNT, "divvy", 3600), "the API server does not accept it: [invalid bearer token");
    let of_another = account_token(ACCOUNT, "divvy", 3600);
    server.accept(&of_another, "divvy:default", "divvy");
    refused(&of_another, "it is of \"system:serviceaccount:divvy:default\"");
    let for_another = account_token(ACCOUNT, "divvy", 3600);
    server.accept(&for_another, ACCOUNT, "other");
    refused(&for_another, "token audiences do not match");
    assert!(coordinator.workers().is_empty());
}

#[test]
fn an_answer_is_used_until_its_age_and_a_token_that_is_revoked_is_refused_by_then() {
    let mut server = ApiServer::start();
    let token = account_token(ACCOUNT, "divvy", 3600);
    server.accept(&token, ACCOUNT, "divvy");
    let coordinator = start(&server, &[]);
    for _ in 0..20 {
        assert_eq!(register(&coordinator, &token).status, 200);
    }
    assert_eq!(server.requests().len(), 1, "one question for all of them");
    let coordinator = start(&server, &[SHORT_AGE]);
    assert_eq!(register(&coordinator, &token).status, 200);
    server.forget(&token);
    let refused = || (register(&coordinator, &token).status == 401).then_some(());
    eventually("the revoked token is refused", refused);
}

#[test]
fn a_token_is_refused_once_it_has_expired_though_its_answer_is_young() {
    let mut server = ApiServer::start();
    let coordinator = start(&server, &[]);
    let token = account_token(ACCOUNT, "divvy", 6);
    server.accept(&token, ACCOUNT, "divvy");
    assert_eq!(register(&coordinator, &token).status, 200);
    let expired = || {
        let answer = register(&coordinator, &token);
        (answer.status == 401).then(|| answer.problem(401))
    };
    let message = eventually("it expires", expired);
    assert!(message.contains("it has expired"), "{message}");
}

#[test]
fn while_the_api_server_is_away_known_tokens_go_on_until_their_age_and_others_are_put_off() {
    let mut server = ApiServer::start();
    let (known, other) = (account_token(ACCOUNT, "divvy", 3600), account_token(ACCOUNT, "divvy", 3600));
    server.accept(&known, ACCOUNT, "divvy");
    server.accept(&other, ACCOUNT, "divvy");
    let coordinator = start(&server, &[("DIVVY_WORKER_REVIEW_AGE_MS", "5000")]);
    let accepted_at = Instant::now();
    assert_eq!(register(&coordinator, &known).status, 200);
    server.stop();
    let put_off = register(&coordinator, &other);
    assert!(put_off.problem(503).contains("the worker's token cannot be checked"), "{put_off:?}");
    assert!(put_off.head.contains("\r\nretry-after: "), "{put_off:?}");
    let first_refusal = eventually("its answer gets too old", || {
        let answer = register(&coordinator, &known);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(first_refusal.status, 503, "{first_refusal:?}");
    assert!(accepted_at.elapsed() >= Duration::from_secs(4), "{:?}", accepted_at.elapsed());
    coordinator.logged("workers' tokens cannot be checked");
    server.start_again();
    eventually("both are accepted again", || {
        [&known, &other].iter().all(|token| register(&coordinator, token).status == 200).then_some(())
    });
    coordinator.logged("workers' tokens can be checked again");
}

#[test]
fn a_coordinator_that_may_not_ask_says_so_and_lets_nobody_in() {
    let mut server = ApiServer::start();
    let token = account_token(ACCOUNT, "divvy", 3600);
    server.accept(&token, ACCOUNT, "divvy");
    server.refuse(Some(403));
    let coordinator = start(&server, &[]);
    let message = register(&coordinator, &token).problem(503);
    assert!(message.contains("the API server answered 403 Forbidden: divvy may not do this"), "{message}");
    server.refuse(None);
    eventually("it may now", || (register(&coordinator, &token).status == 200).then_some(()));
}
