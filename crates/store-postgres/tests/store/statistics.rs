//! The tables of statistics as `docs/statistics.md` and the dashboard of `docs/grafana` query them.

use model::{Grain, JobState};
use serde_json::Value;
use store::{ChangeKind, NewJob, Store};
use test_postgres::Server;

use crate::helpers::*;

const PAGE: &str = include_str!("../../../../docs/statistics.md");
const DASHBOARD: &str = include_str!("../../../../docs/grafana/statistics-postgresql.json");

/// The queries of the dashboard's panels, with what Grafana puts into them.
fn panels(grain: Grain) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let day = 86_400_000;
    let from = at(0).as_millisecond();
    let (from, to) = ((from - day).to_string(), (from + day).to_string());
    let fill = |sql: &str| sql.replace("$grain", grain.as_str()).replace("$__from", &from).replace("$__to", &to);
    targets.map(|target| fill(target["rawSql"].as_str().expect("SQL"))).collect()
}

#[tokio::test]
async fn the_queries_that_the_documentation_shows_find_the_figures_while_the_store_is_open() {
    let database = Database::new();
    let shared = database.open();
    let store = Store::start(lead(&shared), KEEP_ALL).expect("a thread");
    store.submit(NewJob { submitted_at: at(0), ..range_job(1, 10) }).await.expect("room");
    store.record(change(id(1), at(10), ChangeKind::Started));
    store.record(failed_attempt(id(1), 0..5, 1));
    for tasks in [0..4, 4..7, 7..10] {
        store.record(completed(id(1), tasks, 1));
    }
    store.commit(ended(id(1), JobState::Succeeded, Some("1"))).await.expect("room");
    // As any program beside the coordinators, whose search path is not theirs.
    let server = Server::shared();
    let block = PAGE.split("```pgsql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("SQL");
    let found = server.psql(&database.name, block);
    let lines: Vec<_> = found.lines().collect();
    // Three attempts of a second each, and ten seconds before the start.
    let expected = ["2023-11-14|10|0.2500", "2023-11|sum-of-primes|1|0.00083", "2023-11-14|10.0"];
    assert_eq!(lines.len(), expected.len(), "{found}");
    assert!(lines.iter().zip(expected).all(|(line, start)| line.starts_with(start)), "{found}");
    for grain in Grain::STORED {
        let queries = panels(grain);
        assert_eq!(queries.len(), 7);
        for sql in queries {
            assert_eq!(server.psql(&database.name, &sql).lines().count(), 1, "{sql}");
        }
    }
}
