//! The parameters of a kind, as its schema describes them: what forms and command lines are made from.

use model::JobKind;
use serde_json::{Number, Value};

use crate::KINDS;

/// What a parameter takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An integer that is not negative.
    Whole,
    /// A number.
    Real,
    /// A text.
    Text,
    /// One of these names.
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
    /// Its name in `params`.
    pub name: String,
    /// What it takes.
    pub input: Input,
    /// What it means, in a sentence or some.
    pub hint: String,
    /// Whether a job of the kind needs it.
    pub is_required: bool,
    /// The least number that it takes.
    pub minimum: Option<Number>,
    /// The largest number that it takes.
    pub maximum: Option<Number>,
    /// What it is where it is left out.
    pub default: Option<String>,
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

fn parameter(name: &str, schema: &Value, is_required: bool) -> Parameter {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(only) => vec![only.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    let choices =
        schema["enum"].as_array().map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let input = match (types.first().copied(), choices) {
        (_, Some(choices)) => Input::Choice(choices),
        (Some("integer"), None) => Input::Whole,
        (Some("number"), None) => Input::Real,
        (Some("boolean"), None) => Input::Switch,
        (Some("string"), None) => Input::Text,
        (Some("array"), None) => Input::List,
        (Some(_) | None, None) => Input::Json,
    };
    let number = |name: &str| schema[name].as_number().cloned();
    let default = match &schema["default"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(other.to_string()),
    };
    Parameter {
        name: name.to_owned(),
        input,
        hint: schema["description"].as_str().unwrap_or_default().to_owned(),
        is_required,
        minimum: number("minimum"),
        maximum: number("maximum"),
        default,
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
