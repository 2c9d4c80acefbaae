//! `DIVVY_PROGRAMS`: the programs that the worker's operator has installed.
//!
//! ```toml
//! [program.render]
//! command = ["/usr/bin/python3", "/opt/render.py"]
//! description = "Renders one frame"
//! environment = { OMP_NUM_THREADS = "1" }
//! variables = ["SCENE"]
//! working_directory = "/opt"
//! memory_bytes = 1073741824
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use api::{MAX_DESCRIPTION_BYTES, MAX_PROGRAM_NAMES};
use model::{ProgramName, toml_error};
use sandbox::{Limits, NamedCommand};
use serde::Deserialize;

/// The longest file of names, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    program: BTreeMap<ProgramName, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    command: Vec<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// The variables that a job may set.
    variables: Option<BTreeSet<String>>,
    working_directory: Option<PathBuf>,
    /// The most memory that a task gets, whatever its job asks for.
    memory_bytes: Option<u64>,
    scratch_bytes: Option<u64>,
    processes: Option<u32>,
}

/// A named program.
#[derive(Debug)]
pub(crate) struct NamedProgram {
    pub(crate) command: NamedCommand,
    pub(crate) description: String,
    variables: Option<BTreeSet<String>>,
    memory_bytes: Option<u64>,
    scratch_bytes: Option<u64>,
    processes: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct NamedPrograms(BTreeMap<ProgramName, NamedProgram>);

impl NamedPrograms {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProgramName, &NamedProgram)> {
        self.0.iter()
    }

    pub(crate) fn get(&self, name: &ProgramName) -> Option<&NamedProgram> {
        self.0.get(name)
    }
}

impl NamedProgram {
    /// The first variable of a job that the operator does not let jobs set.
    pub(crate) fn refused<'a>(&self, env: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let variables = self.variables.as_ref()?;
        env.keys().map(String::as_str).find(|name| !variables.contains(*name))
    }

    /// Applies the limits that the operator has set to those of a task.
    pub(crate) fn limit(&self, limits: &mut Limits) {
        limits.memory_bytes = self.memory_bytes.map_or(limits.memory_bytes, |most| limits.memory_bytes.min(most));
        limits.scratch_bytes = self.scratch_bytes.unwrap_or(limits.scratch_bytes);
        limits.processes = self.processes.unwrap_or(limits.processes);
    }
}

pub(crate) fn read(path: &Path) -> anyhow::Result<NamedPrograms> {
    let bytes = std::fs::metadata(path)?.len();
    ensure!(bytes <= MAX_FILE_BYTES, "it is longer than {MAX_FILE_BYTES} bytes");
    parse(&std::fs::read_to_string(path)?)
}

fn parse(text: &str) -> anyhow::Result<NamedPrograms> {
    let wrong = |error: toml::de::Error| anyhow!(toml_error(text, error.message(), error.span()));
    let File { program } = toml::from_str(text).map_err(wrong)?;
    ensure!(program.len() <= MAX_PROGRAM_NAMES, "it names more than {MAX_PROGRAM_NAMES} programs");
    let named = program.into_iter().map(|(name, entry)| {
        let checked = check(entry).with_context(|| format!("program {name}"))?;
        Ok((name, checked))
    });
    Ok(NamedPrograms(named.collect::<anyhow::Result<_>>()?))
}

fn check(entry: Entry) -> anyhow::Result<NamedProgram> {
    let Entry {
        command,
        description,
        environment,
        variables,
        working_directory,
        memory_bytes,
        scratch_bytes,
        processes,
    } = entry;
    let command_name = command.first().filter(|name| !name.is_empty()).context("command is empty")?;
    if let Some(directory) = &working_directory {
        ensure!(directory.is_dir(), "working_directory {} is no directory", directory.display());
    }
    if command_name.starts_with('/') {
        ensure!(Path::new(command_name).exists(), "{command_name} is not there");
    } else if command_name.contains('/') {
        let directory = working_directory.as_ref().with_context(|| {
            format!("{command_name} would lie in the task's scratch directory, which is empty: give its whole path")
        })?;
        ensure!(directory.join(command_name).exists(), "{command_name} is not in {}", directory.display());
    }
    let mut words = command.iter().chain(environment.iter().flat_map(|(name, value)| [name, value]));
    ensure!(!words.any(|word| word.contains('\0')), "command or environment has a NUL");
    if let Some(name) = environment.keys().find(|name| name.is_empty() || name.contains('=')) {
        bail!("environment: {name:?} is no name of a variable");
    }
    ensure!(memory_bytes != Some(0), "memory_bytes is 0: no program runs without memory");
    ensure!(processes != Some(0), "processes is 0: the program itself is one");
    ensure!(
        description.len() <= MAX_DESCRIPTION_BYTES && !description.contains(char::is_control),
        "description is longer than {MAX_DESCRIPTION_BYTES} bytes, or has control characters"
    );
    let command = NamedCommand { argv: command, env: environment, working_directory };
    Ok(NamedProgram { command, description, variables, memory_bytes, scratch_bytes, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_has_a_command_and_may_have_limits_of_its_own() {
        let text = "[program.render]\ncommand = [\"/bin/sh\", \"-c\", \"true\"]\ndescription = \"Renders\"\n\
                    environment = { A = \"b\" }\nmemory_bytes = 1000\nprocesses = 3\n";
        let named = parse(text).expect("valid");
        let name = "render".to_owned().try_into().expect("a name");
        let render = named.get(&name).expect("named");
        assert_eq!((render.command.argv.len(), render.description.as_str()), (3, "Renders"));
        let mut limits = Limits::default();
        render.limit(&mut limits);
        assert_eq!((limits.memory_bytes, limits.processes), (1_000, 3));
        assert_eq!(limits.scratch_bytes, Limits::default().scratch_bytes);
    }

    #[test]
    fn a_program_with_a_list_of_variables_takes_no_others() {
        let refused = |entry: &str| {
            let named = parse(&format!("[program.render]\ncommand = [\"a\"]\n{entry}")).expect("valid");
            let name = "render".to_owned().try_into().expect("a name");
            let env = BTreeMap::from(["SCENE", "TRACE"].map(|name| (name.to_owned(), "1".to_owned())));
            named.get(&name).expect("named").refused(&env).map(str::to_owned)
        };
        assert_eq!(refused("").as_deref(), None);
        assert_eq!(refused("variables = [\"SCENE\", \"TRACE\"]").as_deref(), None);
        assert_eq!(refused("variables = [\"SCENE\"]").as_deref(), Some("TRACE"));
        assert_eq!(refused("variables = []").as_deref(), Some("SCENE"));
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        for (text, message) in [
            ("[program.render]\ncommand = []", "program render: command is empty"),
            ("[program.render]\ncommand = [\"/no/such/file\"]", "program render: /no/such/file is not there"),
            ("[program.render]\ncommand = [\"./a\"]", "program render: ./a would lie in the task's scratch directory"),
            (
                "[program.render]\ncommand = [\"./no-such-file\"]\nworking_directory = \"/usr\"",
                "program render: ./no-such-file is not in /usr",
            ),
            (
                "[program.render]\ncommand = [\"a\"]\nworking_directory = \"/no/such/directory\"",
                "program render: working_directory /no/such/directory is no directory",
            ),
            ("[program.render]\ncommand = [\"a\", \"b\\u0000\"]", "program render: command or environment has a NUL"),
            (
                "[program.render]\ncommand = [\"a\"]\nenvironment = { \"A=B\" = \"1\" }",
                "program render: environment: \"A=B\" is no name of a variable",
            ),
            ("[program.render]\ncommand = [\"a\"]\nmemory_bytes = 0", "program render: memory_bytes is 0"),
            ("[program.render]\ncommand = [\"a\"]\nprocesses = 0", "program render: processes is 0"),
            ("[program.Render]\ncommand = [\"a\"]", "program must be the SHA-256"),
            (
                "[program.render]\ncommand = [\"a\"]\nmemory = 1",
                "line 3: memory is no field here: this object takes command, ",
            ),
            ("programs = 1", "line 1: programs is no field here: this object takes program"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(message), "{error}");
        }
    }
}
