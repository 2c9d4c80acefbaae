//! The whole grid as its users meet it: the real binaries as processes, real sockets, real signals.
//!
//! The three binaries belong to other packages, so the first test of a run builds them with the profile that these
//! tests have. Ports are free ones, and every process is killed when its test ends, however that ends. Tests wait for
//! conditions, never for a time; the few limits in them are the ones that the service promises.

mod abuse;
mod admission;
mod alerts;
mod algorithms;
mod clock_steps;
mod command;
mod coordinator_outages;
mod crashes;
mod damaged_rows;
mod database_trouble;
mod deletion_cost;
mod disks;
mod doors;
mod draining;
mod failing_workers;
mod front;
mod helpers;
mod hostile_programs;
mod identity;
mod large_outputs;
mod lone_worker;
mod lost_workers;
mod memory;
mod outlived_coordinators;
mod programs;
mod remains_of_programs;
mod restarts;
mod revocations;
mod rolling_upgrade;
mod service_commands;
mod several_clocks;
mod several_coordinators;
mod several_crashes;
mod several_drains;
mod several_uploads;
mod soak;
mod statistics;
mod stragglers;
mod traces;
mod verification;
mod worker_token;
