//! The parameters of a `program` job, from arguments and files.

use model::json_error;
use serde_json::value::RawValue;
use workloads::{Combine, ProgramLimits, ProgramParams, ProgramRange};

use super::submit::payloads;
use crate::arguments::{CombineName, ProgramArguments, each_once};
use crate::failure::Failure;
use crate::source::read_text;

pub(super) fn params(arguments: &ProgramArguments) -> Result<ProgramParams, Failure> {
    let args = arguments.args_file.as_ref().map(|file| argument_lists(&read_text(file)?)).transpose()?;
    let payloads: Option<Vec<Box<RawValue>>> =
        arguments.payloads.as_ref().map(|file| payloads(&read_text(file)?)).transpose()?;
    let range = arguments.range.zip(arguments.step).map(|((from, to), step)| ProgramRange { from, to, step });
    if args.is_none() && payloads.is_none() && range.is_none() {
        let what = "say how many tasks there are: give --range and --step, --args-file or --payloads";
        return Err(Failure::Usage(what.to_owned()));
    }
    let combine = match (&arguments.combine_program, arguments.combine) {
        (Some(program), _) => Combine::Program(program.clone()),
        (None, CombineName::None) => Combine::None,
        (None, CombineName::Sum) => Combine::Sum,
        (None, CombineName::Concat) => Combine::Concat,
    };
    let (given, default) = (&arguments.limits, ProgramLimits::default());
    Ok(ProgramParams {
        program: arguments.program.clone(),
        args,
        range,
        payloads: payloads.map(Into::into),
        env: each_once("--env", &given.env)?,
        combine,
        limits: ProgramLimits {
            memory_bytes: given.memory.unwrap_or(default.memory_bytes),
            output_bytes: given.output_limit.unwrap_or(default.output_bytes),
        },
        reproducible: given.reproducible,
        tasks_per_lease: arguments.tasks_per_lease,
    })
}

/// A list of arguments for each line: a JSON array of strings and numbers, else the line is the one argument. Empty lines
/// are no tasks, as in a file of payloads.
fn argument_lists(text: &str) -> Result<Vec<Vec<String>>, Failure> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let lists: Vec<_> = lines.map(|(line, number)| argument_list(line, number)).collect::<Result<_, _>>()?;
    if lists.is_empty() {
        return Err(Failure::Usage("there are no tasks: give a list of arguments for each line".to_owned()));
    }
    Ok(lists)
}

fn argument_list(line: &str, number: u64) -> Result<Vec<String>, Failure> {
    if !line.trim_start().starts_with('[') {
        return Ok(vec![line.to_owned()]);
    }
    let wrong = |what: &str| Failure::Usage(format!("line {number} of the arguments {what}"));
    let no_array = |error: &serde_json::Error| wrong(&format!("is no JSON array: {}", json_error("it", error)));
    let values: Vec<Box<RawValue>> = serde_json::from_str(line).map_err(|error| no_array(&error))?;
    // A number stays as it is written, however many digits it has.
    let text = |value: Box<RawValue>| match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value.get()).map_err(|error| no_array(&error)),
        Some(b'-' | b'0'..=b'9') => Ok(value.get().to_owned()),
        _ => Err(wrong("has what is neither text nor a number")),
    };
    values.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_list_of_arguments_or_one_argument() {
        let lists = argument_lists("[\"a\", 2]\nframe 1.png\n[]\n").expect("lists");
        assert_eq!(lists, [vec!["a".to_owned(), "2".to_owned()], vec!["frame 1.png".to_owned()], vec![]]);
        let numbers = argument_lists("[100000000000000000000, 0.10, -1e2, \"\\u00e9\"]").expect("a list");
        assert_eq!(numbers, [["100000000000000000000", "0.10", "-1e2", "é"].map(str::to_owned)]);
        let others = argument_lists("a\n\n[\"\"]\r\n \n").expect("lists");
        assert_eq!(others, [["a".to_owned()], [String::new()]]);
        for wrong in ["[1", "[true]", "[\"\\ud800\"]", "", "\n \n"] {
            assert!(argument_lists(wrong).is_err(), "{wrong}");
        }
        let Err(Failure::Usage(message)) = argument_lists("a\n\n[true]") else { panic!("refused") };
        assert!(message.starts_with("line 3 of the arguments"), "{message}");
    }
}
