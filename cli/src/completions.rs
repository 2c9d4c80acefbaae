//! `divvy completions SHELL`.

use std::io::{Write, stdout};

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::failure::Failure;
use crate::print::unwritable;

pub(crate) fn run(arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "divvy", &mut script);
    stdout().write_all(&script).map_err(|error| unwritable(&error))
}
