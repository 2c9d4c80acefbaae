//! Prometheus' own evaluation of rules over given samples: `promtool test rules`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::scrapes::Scrape;

/// Repetitions of the last scrape, one a minute: more minutes than any alert waits.
const REPEATED: usize = 50;

/// Rules that can be run.
pub(super) struct Promtool {
    directory: TempDir,
    alerts: Vec<String>,
}

impl Promtool {
    /// Checks the rules.
    pub(super) fn new(rules: &Value) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("rules.json");
        // JSON is YAML.
        fs::write(&file, rules.to_string()).expect("write the rules");
        let (is_fine, said) = run(Command::new("promtool").args(["check", "rules"]).arg(&file));
        assert!(is_fine, "{said}");
        let groups = rules["groups"].as_array().expect("groups").iter();
        let all = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
        let alerts: BTreeSet<_> = all.map(|rule| rule["alert"].as_str().expect("an alert").to_owned()).collect();
        Self { directory, alerts: alerts.into_iter().collect() }
    }

    pub(super) fn without_rules() -> Self {
        Self { directory: TempDir::new().expect("a directory"), alerts: Vec::new() }
    }

    /// The alerts that fire at some time while `scrapes` are made and the last of them stays.
    pub(super) fn alerts(&self, scrapes: &[Scrape]) -> Vec<String> {
        let end = format!("{}m", scrapes.len() + REPEATED);
        let expression = |alert: &str| {
            let firing = format!(r#"count(ALERTS{{alertname="{alert}",alertstate="firing"}})"#);
            format!("(max_over_time({firing}[{end}:1m]) > bool 0) or vector(0)")
        };
        let tests: Vec<_> = self.alerts.iter().map(|alert| (alert.clone(), expression(alert))).collect();
        self.values(&tests, &end, scrapes, json!(["rules.json"]), 1)
    }

    /// The queries that answer nothing once all scrapes were made.
    pub(super) fn empty_queries(&self, queries: &[String], scrapes: &[Scrape]) -> Vec<String> {
        let expression = |query: &String| format!("(count({query}) > bool 0) or vector(0)");
        let tests: Vec<_> = queries.iter().map(|query| (query.clone(), expression(query))).collect();
        self.values(&tests, &format!("{}m", scrapes.len()), scrapes, json!([]), 0)
    }

    /// The names of the expressions whose value at `time` is `wanted`; each is 0 or 1.
    fn values(
        &self,
        tests: &[(String, String)],
        time: &str,
        scrapes: &[Scrape],
        rule_files: Value,
        wanted: u8,
    ) -> Vec<String> {
        // Promtool tells the expressions whose value is not the expected one.
        let expected = 1 - wanted;
        let test = |(_, expression): &(String, String)| {
            let sample = json!({ "labels": "{}", "value": expected });
            json!({ "expr": expression, "eval_time": time, "exp_samples": [sample] })
        };
        let file = self.directory.path().join("test.json");
        let content = json!({ "rule_files": rule_files, "evaluation_interval": "15s", "tests": [{
            "interval": "1m",
            "input_series": series(scrapes),
            "promql_expr_test": tests.iter().map(test).collect::<Vec<_>>(),
        }]});
        fs::write(&file, content.to_string()).expect("write a test");
        let (is_fine, said) = run(Command::new("promtool").args(["test", "rules"]).arg(&file));
        let is_told = |(_, expression): &&(String, String)| said.contains(&format!("expr: {expression:?},"));
        let found: Vec<_> = tests.iter().filter(is_told).collect();
        assert_eq!(is_fine, found.is_empty(), "{said}");
        found.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

/// The series of one scrape a minute, the last scrape repeated. The end of a series is marked as stale, as by a failed scrape.
fn series(scrapes: &[Scrape]) -> Vec<Value> {
    let names: BTreeSet<_> = scrapes.iter().flat_map(|scrape| scrape.keys()).collect();
    let moments = || scrapes.iter().chain(std::iter::repeat_n(scrapes.last().expect("a scrape"), REPEATED));
    let values = |name: &String| {
        let value = |scrape: &Scrape| scrape.get(name).map_or("stale", String::as_str).to_owned();
        moments().map(value).collect::<Vec<_>>().join(" ")
    };
    names.into_iter().map(|name| json!({ "series": name, "values": values(name) })).collect()
}

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("promtool runs (Debian: prometheus; scripts/test.sh installs it)");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
