//! Statistics counted again from the records of events alone, as another program would count them.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value;

use super::{Coordinator, Record};

const GRAINS: [(&str, i64); 3] = [("minute", 60), ("hour", 3600), ("day", 86_400)];
/// The names of the counters, by their place in an answer.
const FIGURES: [&str; 12] = [
    "/jobs/submitted",
    "/jobs/started",
    "/jobs/succeeded",
    "/jobs/failed",
    "/jobs/canceled",
    "/jobs/pending",
    "/tasks/submitted",
    "/tasks/succeeded",
    "/waiting/count",
    "/waiting/sum_us",
    "/running/count",
    "/running/sum_us",
];

/// The figures by grain, second and kind.
type Table = BTreeMap<(&'static str, i64, String), BTreeMap<&'static str, u64>>;

/// A job that the events so far tell of.
#[derive(Default)]
struct Life {
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    tasks_done: u64,
}

/// Checks that the statistics equal the records, each number counted once.
pub(crate) fn check_statistics(coordinator: &Coordinator, records: &[Record]) {
    let events: BTreeMap<u64, Value> = records
        .iter()
        .map(|record| record.json())
        .map(|event| (event["seq"].as_u64().expect("a number"), event))
        .collect();
    let (mut expected, mut found) = (counted(events.values()), answered(coordinator));
    // An event such as a pause may count nothing, or only attempts.
    for table in [&mut expected, &mut found] {
        table.retain(|_, row| row.iter().any(|(name, figure)| *name != "/jobs/pending" && *figure > 0));
    }
    assert!(!expected.is_empty());
    for (key, figures) in &expected {
        assert_eq!(found.get(key), Some(figures), "{key:?}");
    }
    assert_eq!(found.len(), expected.len(), "periods without an event are counted");
}

fn counted<'a>(events: impl Iterator<Item = &'a Value>) -> Table {
    let (mut table, mut lives) = (Table::new(), HashMap::<String, Life>::new());
    let mut pending = HashMap::<String, u64>::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("no {name} in {event}")).to_owned();
        let at: Timestamp = text("at").parse().expect("a time");
        let life = lives.entry(text("job")).or_default();
        let pending = pending.entry(text("kind")).or_default();
        let done = event["tasks_done"].as_u64().expect("a count");
        let us = |from: Timestamp| u64::try_from(at.duration_since(from).as_micros()).unwrap_or(0);
        let mut adds = vec![("/tasks/succeeded", done - life.tasks_done)];
        life.tasks_done = done;
        match text("type").as_str() {
            "submitted" => {
                life.submitted_at = at;
                *pending += 1;
                adds.extend([
                    ("/jobs/submitted", 1),
                    ("/tasks/submitted", event["tasks_total"].as_u64().expect("a count")),
                ]);
            }
            "started" => {
                life.started_at = Some(at);
                adds.extend([("/jobs/started", 1), ("/waiting/count", 1), ("/waiting/sum_us", us(life.submitted_at))]);
            }
            end @ ("succeeded" | "failed" | "canceled") => {
                *pending -= 1;
                let figure = FIGURES.into_iter().find(|figure| figure.strip_prefix("/jobs/") == Some(end));
                adds.push((figure.expect("it is counted"), 1));
                adds.extend(life.started_at.map(|since| ("/running/sum_us", us(since))));
                adds.push(("/running/count", u64::from(life.started_at.is_some())));
            }
            _ => (),
        }
        for (grain, seconds) in GRAINS {
            let start = at.as_second().div_euclid(seconds) * seconds;
            let row = table.entry((grain, start, text("kind")));
            let row = row.or_insert_with(|| FIGURES.into_iter().map(|name| (name, 0)).collect());
            for (name, figure) in &adds {
                *row.get_mut(name).expect("it is counted") += figure;
            }
            row.insert("/jobs/pending", *pending);
        }
    }
    table
}

fn answered(coordinator: &Coordinator) -> Table {
    let mut table = Table::new();
    for (grain, _) in GRAINS {
        let mut next = String::new();
        loop {
            let page = coordinator.get(&format!("/v1/statistics?grain={grain}&from=2020-01-01&limit=3{next}"));
            for period in page["periods"].as_array().expect("periods") {
                let start: Timestamp = period["start"].as_str().expect("a time").parse().expect("a time");
                let kind = period["kind"].as_str().expect("a kind").to_owned();
                let figure = |name| (name, period.pointer(name).and_then(Value::as_u64).expect("a number"));
                table.insert((grain, start.as_second(), kind), FIGURES.into_iter().map(figure).collect());
            }
            let Some(token) = page["next_page_token"].as_str() else { break };
            next = format!("&page_token={token}");
        }
    }
    table
}
