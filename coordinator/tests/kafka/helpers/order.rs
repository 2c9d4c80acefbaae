//! Reads event records of which some are repeated.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Record;

/// The events of each partition in order, for a reader that drops repeated numbers. Panics if an event comes too late.
pub(crate) fn read_by_number(records: &[Record]) -> Vec<u64> {
    let mut last: BTreeMap<i32, u64> = BTreeMap::new();
    let mut numbers = Vec::new();
    for record in records {
        let number = record.header("ce_id").and_then(|id| id.parse().ok()).expect("a number");
        let last = last.entry(record.partition).or_default();
        if number > *last {
            *last = number;
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    numbers
}

/// Each key's events by number are those of the coordinator, in its order.
pub(crate) fn check_order(records: &[Record], events: &[Value]) {
    let mut found: HashMap<&str, Vec<Value>> = HashMap::new();
    for record in records {
        let events = found.entry(record.key.as_deref().expect("a key")).or_default();
        let event = record.json();
        if events.last().is_none_or(|last| last["seq"].as_u64() < event["seq"].as_u64()) {
            events.push(event);
        }
    }
    let mut expected: HashMap<&str, Vec<Value>> = HashMap::new();
    for event in events {
        expected.entry(event["job"].as_str().expect("a job")).or_default().push(event.clone());
    }
    assert!(found == expected, "the events of some job are others, or in another order");
}
