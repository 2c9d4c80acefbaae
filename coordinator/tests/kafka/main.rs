//! The coordinator and a real broker of Apache Kafka, as processes; `kcat` is what reads and writes beside them.
//!
//! Each test has a broker of its own, one at a time: a broker takes seconds of a core to start.

mod alerts;
mod events;
mod faults;
mod helpers;
mod intake;
mod kills;
mod losses;
mod rights;
mod settings;
mod several;
