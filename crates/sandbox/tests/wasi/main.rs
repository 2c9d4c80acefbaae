//! WASI programs, friendly and hostile, as a worker runs them.
#![cfg(feature = "wasm")]

mod compile;
mod helpers;
mod inspect;
mod limits;
mod sum_integers;
mod wasi;
