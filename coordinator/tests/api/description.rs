//! The API's description of itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helpers::{TestCoordinator, config, read};

async fn description(grid: &TestCoordinator) -> Value {
    read(grid.get("/openapi.json").await, 200).await
}

#[actix_web::test]
async fn every_path_is_described_once_with_its_errors_as_problems() {
    let grid = TestCoordinator::start(config());
    let description = description(&grid).await;
    assert_eq!(description["openapi"], "3.1.0");
    assert!(description["info"]["license"].is_null(), "an empty license is none");
    let mut operations = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().expect("an object") {
        for (method, operation) in methods.as_object().expect("an object") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(operations.insert(id.to_owned()), "{id} is there twice");
            for field in ["summary", "responses", "tags"] {
                assert!(!operation[field].is_null(), "{method} {path} has no {field}");
            }
            for (status, response) in operation["responses"].as_object().expect("an object") {
                let is_error = !status.starts_with('2');
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(*schema == "#/components/schemas/Problem", is_error, "{method} {path} {status}");
            }
        }
    }
    let expected = [
        "all_events",
        "change_job",
        "change_jobs",
        "claim_tasks",
        "complete_tasks",
        "delete_program",
        "drain_worker",
        "explain_job",
        "fail_tasks",
        "job_events",
        "job_logs",
        "job_result",
        "list_coordinators",
        "list_jobs",
        "list_program_names",
        "list_programs",
        "list_tasks",
        "list_workers",
        "named_result",
        "put_job",
        "put_program",
        "release_tasks",
        "renew_tasks",
        "show_job",
        "show_program",
        "simulate",
        "skip_tasks",
        "statistics",
        "stats",
        "submit_job",
        "sum_of_primes",
        "task_result",
        "task_statistics",
    ];
    assert_eq!(operations, expected.map(str::to_owned).into());
}

#[actix_web::test]
async fn every_reference_of_the_description_leads_somewhere() {
    let grid = TestCoordinator::start(config());
    let description = description(&grid).await;
    let text = description.to_string();
    let mut references = 0;
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().expect("a pointer");
        assert!(description.pointer(pointer).is_some(), "{pointer}");
        references += 1;
    }
    assert!(references > 20);
}

#[actix_web::test]
async fn schemas_have_names_of_the_service_and_workers_are_told_their_port() {
    let grid = TestCoordinator::start(config());
    let description = description(&grid).await;
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    assert!(schemas.contains_key("Labels") && !schemas.contains_key("BTreeMap"), "{:?}", schemas.keys());
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let server = operation["servers"][0]["url"].as_str();
            let expected = path.starts_with("/v1/worker/").then_some("http://{host}:{port}");
            assert_eq!(server, expected, "{method} {path}");
        }
    }
}

#[actix_web::test]
async fn the_page_to_try_the_api_out_loads_nothing_from_elsewhere() {
    let grid = TestCoordinator::start(config());
    assert_eq!(grid.get("/docs").await.headers()["location"], "/docs/");
    let mut pages = vec!["/docs/".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = pages.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let response = grid.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let text = response.text().await.expect("text");
        if path.ends_with('/') || path.ends_with(".html") {
            for link in text.split(['"', '\'']).filter(|link| link.ends_with(".js") || link.ends_with(".css")) {
                pages.push(format!("/docs/{}", link.trim_start_matches("./")));
            }
        }
        let loads_from_elsewhere =
            ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "url(http", "url(\"http", "@import"];
        for found in loads_from_elsewhere.into_iter().filter(|_| !path.ends_with(".js")) {
            assert!(!text.contains(found), "{path} holds {found}");
        }
    }
    assert!(seen.len() >= 4, "{seen:?}");
}
