//! The `divvy` command against a real grid, as scripts and people see it.

mod change;
mod completions;
mod failures;
mod follow;
mod helpers;
mod look;
mod output;
mod programs;
mod statistics;
mod submit;
mod terminal;
mod tokens;
mod up;
