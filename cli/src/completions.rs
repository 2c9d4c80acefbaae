//! `divvy completions SHELL`.

use std::io::{Write, stdout};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::{Arguments, Completions};
use crate::failure::Failure;
use crate::print::unwritable;

pub(crate) fn run(arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "divvy", &mut script);
    if arguments.shell == Shell::Zsh {
        script = zsh_that_loads_its_completion(&script);
    }
    stdout().write_all(&script).map_err(|error| unwritable(&error))
}

/// The script registers itself by `compdef`, which exists only after `compinit`: where it is read earlier, such as at the
/// top of a `.zshrc`, it loads that first.
fn zsh_that_loads_its_completion(script: &[u8]) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    let load = "    if ! (( $+functions[compdef] )); then\n        autoload -Uz compinit && compinit\n    fi\n";
    script.replace("    compdef _divvy divvy\n", &format!("{load}    compdef _divvy divvy\n")).into_bytes()
}
