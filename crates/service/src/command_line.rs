//! The command line of a service: it is configured by its environment, so it has `--help`,
//! `--version` and `--check-config` only.

use std::ffi::OsString;
use std::io::{Write, stdout};
use std::process::ExitCode;

use crate::config::unknown_variables;
use crate::{exit_code, telemetry};

/// Columns of a line of help.
const WIDTH: usize = 96;

/// Options of every program.
const OPTIONS: &str = "[--help | --version | --check-config]";

/// Options, each of which stands alone.
const KNOWN: [&str; 5] = ["--help", "-h", "--version", "-V", "--check-config"];

/// Exit code for wrong usage, the same in all programs of the project.
pub const WRONG_USAGE: u8 = 2;

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its meaning, unit and default.
    pub help: String,
}

/// The variables that the comments of a configuration describe, in their order: a field's comment that begins with a name
/// in backticks, as in ``/// `DIVVY_SLOTS`: leases computed at the same time.``
#[must_use]
pub fn variables_of(source: &str) -> Vec<Variable> {
    let mut variables = Vec::new();
    let mut comment = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push_str(text);
        } else if !line.starts_with("#[") {
            variables.extend(variable(&comment));
            comment.clear();
        }
    }
    variables
}

fn variable(comment: &str) -> Option<Variable> {
    let (name, help) = comment.trim_start().strip_prefix('`')?.split_once('`')?;
    let is_name = name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_');
    let help = help.trim_start_matches([':', ',']).trim().replace('`', "");
    is_name.then(|| Variable { name: name.to_owned(), help })
}

/// A service as its command line shows it.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// The name of its binary.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Purpose of the program, in one sentence.
    pub about: &'static str,
    /// Syntax of the program's commands, a line each, without its name.
    pub commands: &'static [&'static str],
    /// The variables that configure it, save those of the logs.
    pub variables: Vec<Variable>,
    /// Reads the environment as a start does, and refuses what a start would refuse.
    pub check: fn() -> anyhow::Result<()>,
}

impl CommandLine {
    /// Answers `--help` and `--version`, checks the environment for `--check-config`, and refuses every other argument. None
    /// when there are no arguments: the service is to start.
    pub fn answer(&self, arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
        let arguments: Vec<String> =
            arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let text = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => return None,
            ["--help" | "-h"] => self.help(),
            ["--version" | "-V"] => format!("{} {}\n", self.name, self.version),
            ["--check-config"] => return Some(self.check_config()),
            [first, rest @ ..] => {
                telemetry::report_fatal(&self.refusal(first, rest));
                return Some(ExitCode::from(WRONG_USAGE));
            }
        };
        // A closed stdout is no error of the program.
        let _ = stdout().write_all(text.as_bytes());
        Some(ExitCode::SUCCESS)
    }

    /// Checks the environment, and warns as a start does of variables that no program reads.
    fn check_config(&self) -> ExitCode {
        for name in unknown_variables(&[&self.variables]) {
            telemetry::report_warning(&format!("no program reads the variable {name}: it has no effect"));
        }
        exit_code(&telemetry::check().and_then(|()| (self.check)()))
    }

    /// The message that refuses arguments other than a single option.
    fn refusal(&self, first: &str, rest: &[&str]) -> String {
        let name = self.name;
        match rest.first() {
            Some(second) if KNOWN.contains(&first) => format!("{name} takes {first} alone, but {second:?} follows it"),
            _ => format!("{name} takes no argument such as {first:?}: its environment configures it (see --help)"),
        }
    }

    fn help(&self) -> String {
        let Self { name, about, commands, .. } = self;
        let mut text = format!("{}\n\nUsage: {name} {OPTIONS}\n", wrap(about, WIDTH).join("\n"));
        commands.iter().for_each(|command| text.push_str(&format!("       {name} {command}\n")));
        text.push_str("\nVariables of the environment:\n");
        let logs = telemetry::variables();
        for Variable { name, help } in self.variables.iter().chain(&logs) {
            text.push_str(&format!("  {name}\n"));
            wrap(help, WIDTH - 6).iter().for_each(|line| text.push_str(&format!("      {line}\n")));
        }
        text.push_str("\nAn empty variable counts as unset. A value out of its range stops the start.\n");
        text
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
        /// The configuration.
        pub struct Config {
            /// `DIVVY_ONE`: the first, such as `x`. Default `1`,
            /// in seconds.
            #[serde(default)]
            pub one: u64,
            /// Not a variable.
            pub two: u64,
            /// `POD_IP`, without the prefix of the others: an address.
            pub ip: String,
        }";

    #[test]
    fn variables_are_read_from_the_comments_of_their_fields() {
        let variables = variables_of(SOURCE);
        let expected = [
            ("DIVVY_ONE", "the first, such as x. Default 1, in seconds."),
            ("POD_IP", "without the prefix of the others: an address."),
        ];
        let expected = expected.map(|(name, help)| Variable { name: name.to_owned(), help: help.to_owned() });
        assert_eq!(variables, expected);
    }

    #[test]
    fn the_argument_that_is_too_many_is_named() {
        let command_line = CommandLine {
            name: "divvy-x",
            version: "1",
            about: "Does it.",
            commands: &[],
            variables: Vec::new(),
            check: || Ok(()),
        };
        assert_eq!(
            command_line.refusal("--check-config", &["x"]),
            r#"divvy-x takes --check-config alone, but "x" follows it"#
        );
        let other = command_line.refusal("y", &["--help"]);
        assert!(other.starts_with(r#"divvy-x takes no argument such as "y": "#), "{other}");
    }

    #[test]
    fn help_fits_its_width_and_ends_with_the_variables_of_the_logs() {
        let variables = vec![Variable { name: "DIVVY_X".to_owned(), help: "word ".repeat(60) }];
        let command_line = CommandLine {
            name: "divvy-x",
            version: "1",
            about: "Does it.",
            commands: &["undo [--help]"],
            variables,
            check: || Ok(()),
        };
        let help = command_line.help();
        assert!(help.lines().all(|line| line.len() <= WIDTH), "{help}");
        assert!(
            help.contains("\nUsage: divvy-x [--help | --version | --check-config]\n       divvy-x undo [--help]\n\n"),
            "{help}"
        );
        assert!(help.contains("  DIVVY_X\n") && help.contains("  DIVVY_LOG_FORMAT\n"), "{help}");
    }
}
