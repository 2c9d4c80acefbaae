//! The coordinator through its HTTP face, in this process, on ports it picks.

mod helpers;

mod answers;
mod bad_input;
mod operations;
mod registration;
