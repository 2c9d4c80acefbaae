//! The `divvy` command against a real grid: what scripts and people see of it.

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
