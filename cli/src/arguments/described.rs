//! The commands of `divvy job submit` for kinds of job without one of their own: the kind's schema says which options they
//! take, so that a kind needs nothing here.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, Subcommand};
use model::JobKind;
use serde_json::{Map, Value};
use workloads::{Input, Kind, Parameter, parameters};

use super::job::{Work, WorkCommand};
use super::values::number;

/// A kind of job with its parameters.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) kind: JobKind,
    pub(crate) params: Map<String, Value>,
}

fn described() -> impl Iterator<Item = &'static dyn Kind> {
    workloads::KINDS.iter().copied().filter(|kind| !WorkCommand::has_subcommand(kind.name().as_str()))
}

fn kind_of(command: &str) -> Option<&'static dyn Kind> {
    described().find(|kind| kind.name().as_str() == command)
}

impl Subcommand for Work {
    fn augment_subcommands(command: Command) -> Command {
        described().fold(WorkCommand::augment_subcommands(command), |command, kind| {
            command.subcommand(command_of(kind.name(), kind.summary(), &parameters(kind.name())))
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        WorkCommand::has_subcommand(name) || kind_of(name).is_some()
    }
}

impl FromArgMatches for Work {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        if let Some((name, options)) = matches.subcommand()
            && let Some(kind) = kind_of(name)
        {
            let params = params_of(options, parameters(kind.name()))?;
            return Ok(Self::Described(Described { kind: kind.name(), params }));
        }
        WorkCommand::from_arg_matches(matches).map(Self::Named)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The command of a kind. Names are leaked once, as clap wants them for as long as the program runs.
fn command_of(name: JobKind, summary: &'static str, parameters: &[Parameter]) -> Command {
    let command = Command::new(&*name.to_string().leak()).about(summary);
    parameters.iter().fold(command, |command, parameter| command.arg(option_of(parameter)))
}

fn option_of(parameter: &Parameter) -> Arg {
    let name: &'static str = parameter.name.clone().leak();
    let default = parameter.default.as_ref().map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let hint = parameter.hint.trim_end_matches('.');
    let option = Arg::new(name)
        .long(&*name.replace('_', "-").leak())
        .help(format!("{hint}{default}"))
        .required(parameter.is_required)
        .allow_hyphen_values(true);
    match &parameter.input {
        Input::Whole => option.value_name("N").value_parser(|text: &str| number(text).map(Value::from)),
        Input::Real => option.value_name("NUMBER").value_parser(real),
        Input::Text => option.value_name("TEXT").value_parser(|text: &str| Ok::<_, String>(Value::from(text))),
        Input::Choice(choices) => {
            let choices: Vec<&'static str> = choices.iter().map(|choice| &*choice.clone().leak()).collect();
            option.value_name("NAME").value_parser(PossibleValuesParser::new(choices).map(Value::from))
        }
        Input::Switch => option
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]).map(|text| Value::from(text == "true"))),
        Input::List => option.value_name("JSON").action(ArgAction::Append).value_parser(json),
        Input::Json => option.value_name("JSON").value_parser(json),
    }
}

fn real(text: &str) -> Result<Value, String> {
    let read = text.parse().ok().and_then(serde_json::Number::from_f64);
    read.map(Value::from).ok_or_else(|| "give a number, such as 0.5".to_owned())
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("give JSON: {}", model::json_error("it", &error)))
}

/// The parameters that were given; the others are left to the grid.
fn params_of(options: &ArgMatches, parameters: Vec<Parameter>) -> Result<Map<String, Value>, clap::Error> {
    let mut params = Map::new();
    for Parameter { name, input, .. } in parameters {
        let given = options.try_get_many::<Value>(&name);
        let given = given.map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, error))?;
        let Some(mut values) = given else { continue };
        let value = if input == Input::List { Some(values.cloned().collect()) } else { values.next_back().cloned() };
        params.extend(value.map(|value| (name, value)));
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use serde_json::json;

    use super::*;
    use crate::arguments::Arguments;

    fn parameter(name: &str, input: Input, is_required: bool) -> Parameter {
        let (name, hint) = (name.to_owned(), "A hint.".to_owned());
        Parameter { name, input, hint, is_required, minimum: None, maximum: None, default: None, example: None }
    }

    fn read(line: &str) -> Result<Value, clap::Error> {
        let parameters = vec![
            parameter("a_b", Input::Whole, true),
            parameter("real", Input::Real, false),
            parameter("text", Input::Text, false),
            parameter("choice", Input::Choice(vec!["x".to_owned(), "y".to_owned()]), false),
            parameter("switch", Input::Switch, false),
            parameter("list", Input::List, false),
            parameter("json", Input::Json, false),
        ];
        let command = command_of(JobKind::new("trial"), "A trial", &parameters);
        command.clone().debug_assert();
        params_of(&command.try_get_matches_from(line.split(' '))?, parameters).map(Value::from)
    }

    #[test]
    fn every_kind_has_a_command_and_commands_agree_with_the_schemas() {
        let mut command = Arguments::command();
        command.build();
        let submit = command.find_subcommand("job").and_then(|job| job.find_subcommand("submit")).expect("a command");
        for kind in workloads::KINDS {
            assert!(submit.find_subcommand(kind.name().as_str()).is_some(), "{}", kind.name());
        }
        let named = Arguments::try_parse_from(["divvy", "job", "submit", "sleep", "--seconds", "1"]);
        assert!(named.is_ok_and(|arguments| format!("{arguments:?}").contains("Named(Sleep")));
    }

    #[test]
    fn options_become_parameters_of_the_types_that_the_schema_names() {
        let line = "trial --a-b 1e6 --real -0.5 --text 7 --choice y --switch --list 1 --list {\"n\":2} --json [null]";
        let expected = json!({"a_b": 1_000_000, "real": -0.5, "text": "7", "choice": "y", "switch": true,
            "list": [1, {"n": 2}], "json": [null]});
        assert_eq!(read(line).expect("valid"), expected);
        assert_eq!(read("trial --a-b 1 --switch=false").expect("valid"), json!({"a_b": 1, "switch": false}));
    }

    #[test]
    fn options_that_are_missing_or_wrong_are_refused() {
        for line in [
            "trial",
            "trial --a-b -1",
            "trial --a-b 1 --real x",
            "trial --a-b 1 --choice z",
            "trial --a-b 1 --switch=yes",
            "trial --a-b 1 --json {",
            "trial --a-b 1 --other 1",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
