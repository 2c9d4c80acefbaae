//! Set-up: processes, requests, workers that misbehave, and sums that others published.

mod api_server;
mod collector;
mod events;
mod fake_worker;
mod group;
mod http;
mod jobs;
mod process;
mod programs;
mod proxy;
mod published;
mod puller;
mod real_collector;
mod services;
mod sleeper;
mod waiting;

pub(crate) use api_server::{ApiServer, account_token};
pub(crate) use collector::ReceivedSpan;
pub(crate) use events::Events;
pub(crate) use fake_worker::{FakeWorker, Fault};
pub(crate) use group::{Group, LONG_LEASE, STEADY_LEASE, all_events};
pub(crate) use http::{Answer, InFlight, connect, get, request, send, try_get_now, try_request};
pub(crate) use jobs::{JobClient, Order, Tasks};
pub(crate) use process::{Process, command, divvy};
pub(crate) use programs::{ProgramGrid, assert_processes_go, path, processes_marked};
pub(crate) use proxy::Proxy;
pub(crate) use published::{published_count, published_sum, round_ranges};
pub(crate) use puller::{Conduct, Puller};
pub(crate) use real_collector::Collector;
pub(crate) use rustix::process::Signal;
pub(crate) use services::{Coordinator, LONG_TASKS, Worker, own_address};
pub(crate) use sleeper::{Pace, Sleeper};
pub(crate) use waiting::{PATIENCE, eventually, heavy, in_one_attempt, in_time, within};
