//! The tables of statistics as `docs/statistics.md` and the dashboard of `docs/grafana` query them.

use std::path::Path;

use model::{Grain, JobState};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use store::{ChangeKind, NewJob};

use crate::helpers::*;

const PAGE: &str = include_str!("../../../../docs/statistics.md");
const DASHBOARD: &str = include_str!("../../../../docs/grafana/statistics.json");

/// The statements of the page's SQL.
fn statements() -> Vec<&'static str> {
    let blocks = PAGE.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(rest));
    blocks.flat_map(|block| block.split(';')).map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// The queries of the dashboard's panels, with what Grafana puts into them.
fn panels(grain: Grain) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("targets");
        targets.iter().inspect(|target| assert_eq!(target["queryText"], target["rawQueryText"]))
    });
    let day = 86_400_000;
    let from = at(0).as_millisecond();
    let (from, to) = ((from - day).to_string(), (from + day).to_string());
    let fill = |sql: &str| sql.replace("$grain", grain.as_str()).replace("$__from", &from).replace("$__to", &to);
    targets.map(|target| fill(target["rawQueryText"].as_str().expect("SQL"))).collect()
}

/// The rows that a query finds, as a program beside the coordinator would.
fn rows(data_dir: &Path, sql: &str) -> Vec<Vec<rusqlite::types::Value>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(data_dir.join("divvy.db"), flags).expect("there");
    let mut select = db.prepare(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    let columns = select.column_count();
    let read = select.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).expect(sql);
    read.collect::<rusqlite::Result<_>>().expect(sql)
}

#[tokio::test]
async fn the_queries_that_the_documentation_shows_find_the_figures_while_the_store_is_open() {
    let (directory, store) = new_store();
    store.submit(NewJob { submitted_at: at(0), ..range_job(1, 10) }).await.expect("room");
    store.record(change(id(1), at(10), ChangeKind::Started));
    store.record(failed_attempt(id(1), 0..5, 1));
    for tasks in [0..4, 4..7, 7..10] {
        store.record(completed(id(1), tasks, 1));
    }
    store.commit(ended(id(1), JobState::Succeeded, Some("1"))).await.expect("room");
    let found: Vec<_> = statements().into_iter().map(|sql| rows(directory.path(), sql)).collect();
    assert_eq!(found.len(), 3);
    let text = format!("{found:?}");
    for part in ["2023-11-14", "2023-11", "Integer(10)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for grain in Grain::STORED {
        let queries = panels(grain);
        assert_eq!(queries.len(), 7);
        for sql in queries {
            assert_eq!(rows(directory.path(), &sql).len(), 1, "{sql}");
        }
    }
}
