//! A kind's form: its fields come from the schema of the kind's parameters, and what a browser sends becomes the body that
//! `POST /v1/jobs` takes.

use std::collections::BTreeMap;

use maud::{Markup, html};
use model::{InvalidJob, JobKind, Labels, json_error, json_error_at, split_word, whole_number};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Number, Value};
use workloads::{Input, Parameter, parameters};

/// The prefix of a parameter's field, which the fields of all jobs lack.
const PARAMETER: &str = "p.";

/// The name of a parameter's field.
pub(crate) fn field_name(parameter: &Parameter) -> String {
    format!("{PARAMETER}{}", parameter.name)
}

/// Names and values of a form's fields, as a browser sent them or as a form begins.
pub(crate) type Values = [(String, String)];

pub(crate) fn value<'a>(values: &'a Values, name: &str) -> Option<&'a str> {
    values.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

/// A field with its label, its hint and its error.
pub(crate) fn field(
    name: &str,
    label: &str,
    hint: &str,
    wrong: Option<&str>,
    control: impl Fn(&str, &str) -> Markup,
) -> Markup {
    let id = format!("field-{}", name.replace('.', "-"));
    let (hint_id, wrong_id) = (format!("{id}-hint"), format!("{id}-wrong"));
    let described = match (hint.is_empty(), wrong.is_some()) {
        (false, true) => format!("{hint_id} {wrong_id}"),
        (false, false) => hint_id.clone(),
        (true, true) => wrong_id.clone(),
        (true, false) => String::new(),
    };
    html! {
        div.field {
            label for=(id) { (label) }
            @if !hint.is_empty() { p.hint id=(hint_id) { (with_code(hint)) } }
            @if let Some(wrong) = wrong { p.wrong id=(wrong_id) role="alert" { (wrong) } }
            (control(&id, &described))
        }
    }
}

/// A text with the parts between backticks as code.
pub(crate) fn with_code(text: &str) -> Markup {
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The field of a parameter.
pub(crate) fn parameter_field(parameter: &Parameter, values: &Values, wrong: Option<&str>) -> Markup {
    let name = field_name(parameter);
    let shown = value(values, &name);
    let invalid = wrong.is_some().then_some("true");
    let Parameter { input, is_required, minimum, maximum, default, example, .. } = parameter;
    let example = example.as_ref().map(|example| example_text(input, example));
    let hint = match input {
        Input::List => format!("{} One entry of JSON a line.", parameter.hint),
        Input::Json => format!("{} JSON.", parameter.hint),
        Input::Whole | Input::Real | Input::Text | Input::Choice(_) | Input::Switch => parameter.hint.clone(),
    };
    field(&name, &parameter.name, &hint, wrong, |id, described| {
        let described = (!described.is_empty()).then_some(described);
        match input {
            Input::Whole | Input::Real => html! {
                input type="number" id=(id) name=(name) value=[shown] placeholder=[default.as_deref()] required[*is_required]
                    step=(if *input == Input::Whole { "1" } else { "any" }) min=[minimum.as_ref()] max=[maximum.as_ref()]
                    aria-describedby=[described] aria-invalid=[invalid] autofocus[invalid.is_some()];
            },
            Input::Text => html! {
                input id=(id) name=(name) value=[shown] placeholder=[default.as_deref()] required[*is_required] autocomplete="off"
                    aria-describedby=[described] aria-invalid=[invalid] autofocus[invalid.is_some()];
            },
            Input::Choice(choices) => {
                let choices: Vec<_> = choices.iter().map(String::as_str).collect();
                select((id, name.as_str()), (described, invalid), parameter, &choices, shown)
            }
            Input::Switch => select((id, name.as_str()), (described, invalid), parameter, &["true", "false"], shown),
            Input::List | Input::Json => html! {
                textarea id=(id) name=(name) required[*is_required] spellcheck="false" placeholder=[example.as_deref()]
                    class=[(*input == Input::Json).then_some("short")] aria-describedby=[described] aria-invalid=[invalid] autofocus[invalid.is_some()] { (shown.unwrap_or_default()) }
            },
        }
    })
}

/// An example as it would be written into the field: a list has an entry a line.
fn example_text(input: &Input, example: &Value) -> String {
    match (input, example) {
        (Input::List, Value::Array(entries)) => entries.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
        _ => example.to_string(),
    }
}

/// A list to choose from. What is left out is named by its value where that is known.
fn select(
    (id, name): (&str, &str),
    (described, invalid): (Option<&str>, Option<&str>),
    parameter: &Parameter,
    choices: &[&str],
    shown: Option<&str>,
) -> Markup {
    let default = parameter.default.as_deref();
    let others = choices.iter().copied().filter(|choice| parameter.is_required || Some(*choice) != default);
    html! {
        select id=(id) name=(name) required[parameter.is_required] aria-describedby=[described] aria-invalid=[invalid] autofocus[invalid.is_some()] {
            @if !parameter.is_required {
                option value="" { @match default { Some(default) => { (default) " (default)" } None => "default" } }
            }
            @for choice in others { option selected[shown == Some(choice)] { (choice) } }
        }
    }
}

/// The body of `POST /v1/jobs` from a form. Fields that are left empty are left out; JSON in fields stays as it is written.
///
/// # Errors
/// A field cannot be read; its name is the form's.
pub fn job_body(kind: JobKind, values: &[(String, String)]) -> Result<Box<RawValue>, (String, String)> {
    let mut params = BTreeMap::new();
    for parameter in parameters(kind) {
        let name = field_name(&parameter);
        let text = value(values, &name).map(str::trim).unwrap_or_default();
        if text.is_empty() && parameter.is_required {
            return Err((name, "must not be empty".to_owned()));
        } else if text.is_empty() {
            continue;
        }
        let read = read(&parameter.input, text).map_err(|message| (name, message))?;
        params.insert(parameter.name, read);
    }
    let mut body = Map::from_iter([("kind".to_owned(), Value::from(kind.as_str()))]);
    put(&mut body, values, "priority", &["priority"], whole)?;
    put(&mut body, values, "tags", &["tags"], labels)?;
    put(&mut body, values, "max_attempts", &["max_attempts"], whole)?;
    put(&mut body, values, "output", &["output"], |text| Ok(Value::from(text)))?;
    put(&mut body, values, "verify", &["verify"], real)?;
    put(&mut body, values, "job_seconds", &["timeout", "job_seconds"], whole)?;
    put(&mut body, values, "task_seconds", &["timeout", "task_seconds"], whole)?;
    put(&mut body, values, "requires", &["requires", "labels"], labels)?;
    put(&mut body, values, "cpus", &["requires", "cpus"], whole)?;
    put(&mut body, values, "memory_bytes", &["requires", "memory_bytes"], whole)?;
    put(&mut body, values, "prefers", &["affinity", "labels"], labels)?;
    put(&mut body, values, "affinity_key", &["affinity", "key"], |text| Ok(Value::from(text)))?;
    let mut body: BTreeMap<String, Box<RawValue>> = body.into_iter().map(|(name, value)| (name, raw(&value))).collect();
    body.insert("params".to_owned(), raw(&params));
    Ok(raw(&body))
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("text, numbers and JSON are JSON")
}

fn put(
    body: &mut Map<String, Value>,
    values: &Values,
    field: &str,
    path: &[&str],
    read: impl Fn(&str) -> Result<Value, String>,
) -> Result<(), (String, String)> {
    let Some(text) = value(values, field).map(str::trim).filter(|text| !text.is_empty()) else { return Ok(()) };
    let read = read(text).map_err(|message| (field.to_owned(), message))?;
    match path {
        [outer, inner] => {
            let outer = body.entry(*outer).or_insert_with(|| Value::from(Map::new()));
            outer[*inner] = read;
        }
        _ => drop(body.insert(path[0].to_owned(), read)),
    }
    Ok(())
}

fn read(input: &Input, text: &str) -> Result<Box<RawValue>, String> {
    match input {
        Input::Whole => form_number(text).map(|number| raw(&number)),
        Input::Real => real(text).map(|number| raw(&number)),
        Input::Text | Input::Choice(_) => Ok(raw(&text)),
        Input::Switch => text.parse::<bool>().map(|is_on| raw(&is_on)).map_err(|_| "must be true or false".to_owned()),
        Input::List => {
            let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
            let entries = lines.map(|(number, line)| {
                json(line).map_err(|error| format!("line {number}: {}", json_error("it", &error)))
            });
            entries.collect::<Result<Vec<_>, _>>().map(|entries| raw(&entries))
        }
        // A word is the name of a choice, without the quotes of JSON.
        Input::Json => match json(text) {
            Err(_) if text.bytes().all(|byte| byte.is_ascii_lowercase()) => Ok(raw(&text)),
            read => read.map_err(|error| json_error_at("it", &error)),
        },
    }
}

fn json(text: &str) -> serde_json::Result<Box<RawValue>> {
    // Some editors begin a text with a byte order mark.
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
}

fn real(text: &str) -> Result<Value, String> {
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map(Value::from).ok_or_else(|| "must be a number, such as 0.5".to_owned())
}

fn whole(text: &str) -> Result<Value, String> {
    form_number(text).map(Value::from)
}

/// A whole number of a form, also one with its thousands apart, or such as `1e6`.
///
/// # Errors
/// The text is no whole number, or takes more than 64 bits.
pub fn form_number(text: &str) -> Result<u64, String> {
    let text: String = text.chars().filter(|c| *c != ',' && !c.is_whitespace()).collect();
    let is_long = text.len() > 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = if is_long { "is too large" } else { "must be a whole number, such as 1000, 1,000 or 1e3" };
    whole_number(&text).ok_or_else(|| wrong.to_owned())
}

/// `key=value, key:value`: the first of either character ends the key.
fn labels(text: &str) -> Result<Value, String> {
    let mut labels = Map::new();
    for pair in text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = split_word(pair);
        let key = key.trim();
        if key.is_empty() {
            return Err(format!("{pair:?} has no key: write key=value, with commas between"));
        }
        if labels.insert(key.to_owned(), Value::from(value.unwrap_or_default().trim())).is_some() {
            return Err(format!("has the key {key:?} twice"));
        }
    }
    Ok(Value::from(labels))
}

/// The form's field that an error of the API names, and the error's text.
#[must_use]
pub fn form_field(kind: JobKind, error: &InvalidJob) -> (String, String) {
    let names = parameters(kind);
    let about = |parameter: &&Parameter| {
        let words: Vec<&str> = error.message.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        words.contains(&parameter.name.as_str())
    };
    let named = names
        .iter()
        .find(|parameter| error.message.strip_prefix(&*parameter.name).is_some_and(|rest| rest.starts_with(' ')));
    let field = match error.field {
        "params" => named.or_else(|| names.iter().find(about)).map(field_name),
        "affinity" => Some("prefers".to_owned()),
        other => Some(other.to_owned()),
    };
    (field.unwrap_or_else(|| "kind".to_owned()), error.message.clone())
}

/// Labels as [`labels`] reads them; none where it would read others.
pub(crate) fn labels_text(all: &Labels) -> Option<String> {
    let text = all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
    let expected = serde_json::to_value(all).ok()?;
    (labels(&text).ok()? == expected).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn body(kind: JobKind, values: &[(String, String)]) -> Result<Value, (String, String)> {
        job_body(kind, values).map(|body| serde_json::from_str(body.get()).expect("JSON"))
    }

    #[test]
    fn json_of_a_form_stays_as_it_is_written() {
        let sent = values(&[("p.list", "100000000000000000000\n{\"z\": 0.10, \"a\": 1}")]);
        let body = job_body(JobKind::TASKS, &sent).expect("valid");
        let list = r#""list":[100000000000000000000,{"z": 0.10, "a": 1}]"#;
        assert!(body.get().contains(list), "{}", body.get());
    }

    #[test]
    fn a_form_becomes_the_body_that_the_interface_takes() {
        let sent = values(&[
            ("p.a", "1"),
            ("p.b", "10,000"),
            ("priority", "9"),
            ("tags", "team=blue, at:b=c, x"),
            ("cpus", "4"),
            ("verify", "0.25"),
            ("output", ""),
        ]);
        let sum = body(JobKind::SUM_OF_PRIMES, &sent).expect("valid");
        let expected = json!({"kind": "sum-of-primes", "params": {"a": 1, "b": 10_000}, "priority": 9,
            "tags": {"at": "b=c", "team": "blue", "x": ""}, "requires": {"cpus": 4}, "verify": 0.25});
        assert_eq!(sum, expected);
        let tasks = body(JobKind::TASKS, &values(&[("p.list", "{\"n\": 1}\n\n2\n")])).expect("valid");
        assert_eq!(tasks["params"], json!({"list": [{"n": 1}, 2]}));
    }

    #[test]
    fn a_choice_names_its_values_and_what_it_is_where_it_is_left_out() {
        let parameters = parameters(JobKind::SUM_OF_PRIMES);
        let shown = |name: &str, values: &[(&str, &str)]| {
            let parameter = parameters.iter().find(|parameter| parameter.name == name).expect("a parameter");
            parameter_field(parameter, &self::values(values), None).0
        };
        let html = shown("algorithm", &[("p.algorithm", "sieve")]);
        for option in [
            "<option value=\"\">auto (default)</option>",
            "<option selected>sieve</option>",
            "<option>combinatorial</option>",
        ] {
            assert!(html.contains(option), "{option}: {html}");
        }
        assert!(shown("verify", &[]).contains("<option value=\"\">false (default)</option><option>true</option>"));
    }

    #[test]
    fn json_shows_its_form_and_a_choice_in_it_needs_no_quotes() {
        let all = parameters(JobKind::PROGRAM);
        let shown = |name: &str| {
            let parameter = all.iter().find(|parameter| parameter.name == name).expect("a parameter");
            parameter_field(parameter, &[], None).0
        };
        let range = shown("range");
        assert!(range.contains("&quot;step&quot;:100000000") && range.contains("class=\"short\""), "{range}");
        let args = shown("args");
        assert!(args.contains("&quot;]\n[&quot;") && !args.contains("class=\"short\""), "{args}");
        let combined = |text: &str| {
            let sent = values(&[("p.program", "render"), ("p.combine", text)]);
            body(JobKind::PROGRAM, &sent).map(|body| body["params"]["combine"].clone())
        };
        for text in ["sum", "\"sum\""] {
            assert_eq!(combined(text), Ok(json!("sum")), "{text}");
        }
        assert_eq!(combined("{\"program\": \"fold\"}"), Ok(json!({"program": "fold"})));
        assert_eq!(combined("{\"program\"").expect_err("no JSON").0, "p.combine");
    }

    #[test]
    fn labels_are_written_as_they_are_read_or_not_at_all() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_iter(values(pairs));
        assert_eq!(labels_text(&labels(&[("a", "b=c"), ("x", "")])).as_deref(), Some("a=b=c, x="));
        assert_eq!(labels_text(&labels(&[])).as_deref(), Some(""));
        for unreadable in [("a", "b, c"), ("a:b", "c"), (" a", "b")] {
            assert_eq!(labels_text(&labels(&[unreadable])), None, "{unreadable:?}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named_as_the_form_has_it() {
        let wrong = |kind, pairs: &[(&str, &str)]| job_body(kind, &values(pairs)).expect_err("wrong").0;
        assert_eq!(wrong(JobKind::SUM_OF_PRIMES, &[("p.a", "1"), ("p.b", "many")]), "p.b");
        assert_eq!(wrong(JobKind::TASKS, &[("p.list", "1\n{")]), "p.list");
        for tags in ["=x", "a=1, a=2"] {
            assert_eq!(wrong(JobKind::SLEEP, &[("p.seconds", "1"), ("tags", tags)]), "tags", "{tags}");
        }
        assert_eq!(wrong(JobKind::SUM_OF_PRIMES, &[("p.a", " ")]), "p.a");
        let error = InvalidJob::new("params", "seconds must be from 0 to 86400");
        assert_eq!(form_field(JobKind::SLEEP, &error).0, "p.seconds");
        assert_eq!(form_field(JobKind::SLEEP, &InvalidJob::new("output", "has …")).0, "output");
    }

    #[test]
    fn what_is_wrong_with_a_field_is_told_in_words_for_it() {
        let wrong = |kind, pairs: &[(&str, &str)]| job_body(kind, &values(pairs)).expect_err("wrong").1;
        let sum = |a: &str| wrong(JobKind::SUM_OF_PRIMES, &[("p.a", a), ("p.b", "1e3")]);
        assert_eq!(sum(""), "must not be empty");
        assert_eq!(sum("99999999999999999999999"), "is too large");
        for text in ["-5", "1.5", "many", "١٠"] {
            assert!(sum(text).starts_with("must be a whole number"), "{text}");
        }
        assert_eq!(
            wrong(JobKind::TASKS, &[("p.list", "1\n[1,")]),
            "line 2: it is no JSON: it ends where a value must be"
        );
        let sum = body(JobKind::SUM_OF_PRIMES, &values(&[("p.a", "1\u{202f}000"), ("p.b", "2.5e6")])).expect("valid");
        assert_eq!(sum["params"], json!({"a": 1_000, "b": 2_500_000}));
    }
}
