//! The parameters of a kind, as its schema describes them, for forms and command lines.

use model::JobKind;
use serde_json::{Number, Value};

use crate::KINDS;

/// The values that a parameter accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An integer that is not negative.
    Whole,
    /// A number.
    Real,
    /// A text.
    Text,
    /// A name of this list.
    Choice(Vec<String>),
    /// True or false.
    Switch,
    /// A list of JSON values.
    List,
    /// Any other JSON.
    Json,
}

/// A parameter of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The name in `params`.
    pub name: String,
    /// The accepted values.
    pub input: Input,
    /// The meaning, in some sentences.
    pub hint: String,
    /// Whether a job of the kind needs it.
    pub is_required: bool,
    /// The least number that it takes.
    pub minimum: Option<Number>,
    /// The largest number that it takes.
    pub maximum: Option<Number>,
    /// The default of an optional parameter.
    pub default: Option<String>,
    /// An example of its value, as JSON.
    pub example: Option<Value>,
}

/// The parameters of a kind, the required ones first; none of an unknown kind.
#[must_use]
pub fn parameters(kind: JobKind) -> Vec<Parameter> {
    let Some(known) = KINDS.iter().find(|known| known.name() == kind) else { return Vec::new() };
    described(&serde_json::to_value(known.params_schema().1).unwrap_or_default())
}

fn described(schema: &Value) -> Vec<Parameter> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut found: Vec<Parameter> =
        properties.map(|(name, schema)| parameter(name, schema, required.contains(&name.as_str()))).collect();
    found.sort_by_key(|parameter| !parameter.is_required);
    found
}

/// The types of a schema without `null`.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(only) => vec![only.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// The part of a schema beside `null`.
fn beside_null(schema: &Value) -> &Value {
    let all = schema["oneOf"].as_array().into_iter().flatten();
    let mut others = all.filter(|one| one["type"] != "null");
    match (others.next(), others.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) | (None, _) => schema,
    }
}

fn input(schema: &Value) -> Input {
    let choices =
        schema["enum"].as_array().map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    match (types(schema).as_slice(), choices) {
        (_, Some(choices)) => Input::Choice(choices),
        (["integer"], None) => Input::Whole,
        (["number"], None) => Input::Real,
        (["boolean"], None) => Input::Switch,
        (["string"], None) => Input::Text,
        (["array"], None) => Input::List,
        (_, None) => Input::Json,
    }
}

/// The description in a schema; a type with a description of its own is followed by the one of its field.
fn description(schema: &Value) -> Option<&str> {
    let parts = || schema["allOf"].as_array().into_iter().flatten().rev();
    schema["description"].as_str().or_else(|| parts().find_map(|part| part["description"].as_str()))
}

/// The example of a schema, or of the one part of it that has one.
fn example(schema: &Value) -> Option<&Value> {
    let parts = || schema["allOf"].as_array().into_iter().flatten();
    own_example(schema).or_else(|| parts().find_map(own_example))
}

fn own_example(schema: &Value) -> Option<&Value> {
    schema.get("example").or_else(|| schema.get("examples")?.get(0))
}

fn parameter(name: &str, schema: &Value, is_required: bool) -> Parameter {
    let shape = beside_null(schema);
    let number = |name: &str| shape[name].as_number().cloned();
    let default = match &schema["default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.to_string()),
    };
    Parameter {
        name: name.to_owned(),
        input: input(shape),
        hint: description(schema).unwrap_or_default().to_owned(),
        is_required,
        minimum: number("minimum"),
        maximum: number("maximum"),
        default,
        example: example(schema).or_else(|| example(shape)).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_property_of_a_kinds_schema_is_a_parameter() {
        for kind in KINDS {
            let schema = serde_json::to_value(kind.params_schema().1).expect("JSON");
            let properties = schema["properties"].as_object().expect("an object").len();
            assert_eq!(parameters(kind.name()).len(), properties, "{}", kind.name());
        }
        let seconds = &parameters(JobKind::SLEEP)[0];
        assert_eq!((seconds.name.as_str(), &seconds.input, seconds.is_required), ("seconds", &Input::Real, true));
        assert_eq!(parameters(JobKind::TASKS)[0].input, Input::List);
        assert_eq!(parameters(JobKind::new("unknown")), []);
    }

    #[test]
    fn every_parameter_says_what_it_means_and_json_has_an_example() {
        for kind in KINDS {
            for parameter in parameters(kind.name()) {
                assert!(!parameter.hint.is_empty(), "{} of {}", parameter.name, kind.name());
            }
        }
        for parameter in KINDS.iter().flat_map(|kind| parameters(kind.name())) {
            let is_shown = parameter.example.is_some();
            assert_eq!(is_shown, matches!(parameter.input, Input::List | Input::Json), "{}", parameter.name);
        }
        let combine = KINDS.iter().find(|kind| kind.name() == JobKind::PROGRAM).expect("a kind").params_schema().1;
        let combine = serde_json::to_value(combine).expect("JSON")["properties"]["combine"].clone();
        assert!(combine["allOf"].is_null(), "a word is no object: {combine}");
    }

    #[test]
    fn a_range_of_primes_names_its_algorithms() {
        for kind in [JobKind::SUM_OF_PRIMES, JobKind::COUNT_PRIMES] {
            let found = parameters(kind);
            let of = |name: &str| found.iter().find(|found| found.name == name).expect("a parameter");
            let choices = Input::Choice(["auto", "sieve", "combinatorial"].map(str::to_owned).into());
            let (algorithm, verify) = (of("algorithm"), of("verify"));
            assert_eq!((&algorithm.input, algorithm.is_required), (&choices, false));
            assert_eq!(algorithm.default.as_deref(), Some("auto"));
            assert!(algorithm.hint.contains("expected to take less"), "{}", algorithm.hint);
            assert_eq!((&verify.input, verify.is_required), (&Input::Switch, false));
        }
    }

    #[test]
    fn a_value_that_may_be_left_out_or_null_is_described_by_what_else_it_may_be() {
        let choice = json!({"type": "string", "enum": ["x", "y"]});
        let schema = json!({"properties": {
            "any": {"oneOf": [{"type": "null"}, {"type": "string"}, {"type": "integer"}]},
            "choice": {"description": "Words.", "oneOf": [{"type": "null"}, choice]},
            "either": {"type": ["string", "integer"]},
        }});
        let found = described(&schema);
        let inputs: Vec<_> = found.iter().map(|found| found.input.clone()).collect();
        let choices = Input::Choice(vec!["x".to_owned(), "y".to_owned()]);
        assert_eq!(inputs, [Input::Json, choices, Input::Json]);
        assert_eq!(found[1].hint, "Words.");
    }

    #[test]
    fn a_parameter_takes_what_its_schema_says() {
        let schema = json!({"required": ["whole"], "properties": {
            "choice": {"type": "string", "enum": ["x", "y"], "default": "x"},
            "json": {"oneOf": [{"type": "string"}, {"type": "object"}]},
            "list": {"type": ["array", "null"]},
            "switch": {"type": "boolean", "default": false},
            "text": {"type": ["null", "string"], "description": "Words."},
            "whole": {"type": "integer", "minimum": 1, "maximum": 9},
        }});
        let found = described(&schema);
        let inputs: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.input.clone())).collect();
        let choices = Input::Choice(vec!["x".to_owned(), "y".to_owned()]);
        assert_eq!(
            inputs,
            [
                ("whole", Input::Whole),
                ("choice", choices),
                ("json", Input::Json),
                ("list", Input::List),
                ("switch", Input::Switch),
                ("text", Input::Text),
            ]
        );
        assert_eq!((found[0].minimum.clone(), found[0].maximum.clone()), (Some(1.into()), Some(9.into())));
        let defaults: Vec<_> = found.iter().map(|found| found.default.as_deref()).collect();
        assert_eq!(defaults, [None, Some("x"), None, None, Some("false"), None]);
        assert_eq!(found[5].hint, "Words.");
    }
}
