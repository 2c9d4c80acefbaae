//! The coordinator and a real broker of Apache Kafka, as processes; `kcat` reads and writes beside them.
//!
//! Tests that do not end their broker share one, each with topics of its own: a broker takes seconds of a core to start.

mod acknowledgements;
mod alerts;
mod cluster;
mod events;
mod faults;
mod helpers;
mod intake;
mod kills;
mod losses;
mod rights;
mod settings;
mod several;
