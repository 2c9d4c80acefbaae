//! The coordinator through its HTTP face, in this process, on ports it picks.

mod helpers;

mod algorithms;
mod answers;
mod bad_input;
mod carried_code;
mod changes;
mod claimed_names;
mod description;
mod doors;
mod events;
mod kinds;
mod lease_streams;
mod listing;
mod lost_claims;
mod operations;
mod pages;
mod preferences;
mod programs;
mod pulling;
mod registration;
mod releasing;
mod restarts;
mod results;
mod several;
mod simulations;
mod skipping;
mod standby;
mod statistics;
mod stopping;
mod submission;
mod tasks;
