//! Several coordinators over one PostgreSQL, each with ways to the database and to its workers that a test can cut.

use std::net::SocketAddr;
use std::path::Path;

use model::JobEvent;
use serde_json::Value;
use tempfile::TempDir;
use test_postgres::Server;

use super::services::own_address;
use super::{Coordinator, JobClient, Proxy, Worker, eventually, get, try_get_now};

/// The program of this release.
const PROGRAM: &str = "divvy-coordinator";

/// The longest lease of the leadership: a leader that lives goes on leading on a machine that stands still for seconds.
pub(crate) const LONG_LEASE: (&str, &str) = ("DIVVY_LEADERSHIP_LEASE_MS", "8000");

/// A lease of the leadership that a leader keeps on a machine that stands still for seconds, and that ends long before a standby
/// gives up the wait for the next leader.
pub(crate) const STEADY_LEASE: (&str, &str) = ("DIVVY_LEADERSHIP_LEASE_MS", "4000");

/// Several coordinators over one PostgreSQL.
#[derive(Debug)]
pub(crate) struct Group {
    // Before the database, so that they end first.
    pub(crate) coordinators: Vec<Coordinator>,
    /// Proxies from each coordinator to the database.
    pub(crate) to_database: Vec<Proxy>,
    /// Proxies from workers to each coordinator.
    pub(crate) to_coordinator: Vec<Proxy>,
    /// A server of this group alone; else that of all tests.
    own_server: Option<Server>,
    database: String,
    results: TempDir,
    settings: Vec<(String, String)>,
}

impl Group {
    /// Starts `count` coordinators; one of them leads when this returns.
    pub(crate) fn start(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(None, PROGRAM, count, settings)
    }

    /// Starts `count` coordinators of another release, by the absolute path of their program, over a server of their own. A
    /// coordinator that is started again is of this release.
    pub(crate) fn start_of_release(program: &str, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(Some(Server::start(&[])), program, count, settings)
    }

    /// Starts `count` coordinators over a server of their own.
    pub(crate) fn start_on_own_server(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(Some(Server::start(&[])), PROGRAM, count, settings)
    }

    /// Starts `count` coordinators over the caller's server.
    pub(crate) fn start_on_server(server: Server, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(Some(server), PROGRAM, count, settings)
    }

    fn start_on(own_server: Option<Server>, program: &str, count: usize, settings: &[(&str, &str)]) -> Self {
        let server = own_server.as_ref().unwrap_or_else(|| Server::shared());
        let database = server.create_database();
        let results = TempDir::new().expect("a directory");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(owned).collect();
        let to_database = (0..count).map(|_| Proxy::to(server.address())).collect();
        let (coordinators, to_coordinator) = (Vec::new(), Vec::new());
        let mut group = Self { coordinators, to_database, to_coordinator, own_server, database, results, settings };
        for number in 0..count {
            let address = own_address();
            let own = [("DIVVY_PUBLIC_ADDR", address.as_str()), ("DIVVY_INTERNAL_ADDR", &address)];
            let settings = group.settings(number);
            let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let coordinator = Coordinator::start_program(program, &[&own, settings.as_slice()].concat());
            group.to_coordinator.push(Proxy::to(coordinator.internal));
            group.coordinators.push(coordinator);
        }
        group.leader();
        eventually("all are listed", || (group.list()?.len() == count).then_some(()));
        group
    }

    fn settings(&self, number: usize) -> Vec<(String, String)> {
        let results = format!("file://{}", self.results.path().display());
        let (way, database) = (self.to_database[number].address(), &self.database);
        let database_url = format!("postgres://divvy@{way}/{database}?sslmode=disable");
        let own = [
            ("DIVVY_COORDINATOR_ID", format!("coordinator-{number}")),
            ("DIVVY_STORE_URL", database_url),
            ("DIVVY_RESULTS_URL", results),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.settings.iter().cloned()).collect()
    }

    /// The name of its database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The group's own server.
    pub(crate) fn server(&self) -> &Server {
        self.own_server.as_ref().expect("a server of its own")
    }

    /// The database's answer to a statement.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.own_server.as_ref().unwrap_or_else(|| Server::shared()).psql(&self.database, sql)
    }

    /// The directory of its results.
    pub(crate) fn results(&self) -> &Path {
        self.results.path()
    }

    /// Starts a coordinator again that has ended, at the same ports.
    pub(crate) fn start_again(&mut self, number: usize) {
        self.start_again_with(number, &[]);
    }

    /// [`Self::start_again`] with variables beside those of the group.
    pub(crate) fn start_again_with(&mut self, number: usize, variables: &[(&str, &str)]) {
        let settings = self.settings(number);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.coordinators[number].start_again(&[settings.as_slice(), variables].concat());
    }

    /// Starts a worker of all coordinators and waits until each of them has it.
    pub(crate) fn worker(&self, variables: &[(&str, &str)]) -> Worker {
        let worker = self.start_worker(variables);
        let all = self.coordinators.len() as f64;
        eventually("every coordinator takes its heartbeats", || {
            (worker.metric("divvy_worker_coordinators") >= all).then_some(())
        });
        worker
    }

    /// Starts a worker of all coordinators, whether or not they are there.
    pub(crate) fn start_worker(&self, variables: &[(&str, &str)]) -> Worker {
        let urls: Vec<_> = self.to_coordinator.iter().map(|way| format!("http://{}", way.address())).collect();
        let urls = urls.join(",");
        let own = [("DIVVY_COORDINATOR", urls.as_str())];
        Worker::start(self.coordinators[0].internal, &[&own, variables].concat())
    }

    /// The list of coordinators that some coordinator gives; `None` while none answers.
    pub(crate) fn list(&self) -> Option<Vec<Value>> {
        let answers = self.coordinators.iter().filter_map(|coordinator| {
            let answer = try_get_now(coordinator.public, "/v1/coordinators")?;
            (answer.status == 200).then(|| answer.json()["coordinators"].as_array().expect("a list").clone())
        });
        answers.into_iter().next()
    }

    /// The number of the coordinator that leads, once one does.
    pub(crate) fn leader(&self) -> usize {
        eventually("one leads", || self.leads_now())
    }

    /// The number of the next coordinator that leads.
    pub(crate) fn leader_after(&self, before: usize) -> usize {
        eventually("another one leads", || self.leads_now().filter(|leader| *leader != before))
    }

    fn leads_now(&self) -> Option<usize> {
        // Each member is asked itself, since the list shows a killed one for a while.
        let running = self.coordinators.iter().enumerate().filter(|(_, coordinator)| coordinator.is_running());
        running.map(|(number, _)| number).find(|number| self.says(*number, "divvy_leader 1"))
    }

    /// Whether a coordinator answers, as the leader or not: each may lead that is there.
    pub(crate) fn answers(&self, number: usize) -> bool {
        ["divvy_leader 0", "divvy_leader 1"].iter().any(|sample| self.says(number, sample))
    }

    fn says(&self, number: usize, sample: &str) -> bool {
        let answer = try_get_now(self.coordinators[number].internal, "/metrics");
        answer.is_some_and(|answer| answer.body.lines().any(|line| line == sample))
    }

    /// A coordinator that lives and is not this one.
    pub(crate) fn other_than(&self, number: usize) -> &Coordinator {
        let mut others = self.coordinators.iter().enumerate().filter(|(other, _)| *other != number);
        others.find(|(_, coordinator)| coordinator.is_running()).expect("another one").1
    }

    pub(crate) fn client(&self, number: usize) -> JobClient {
        JobClient(self.coordinators[number].public)
    }
}

/// Every event that there is, as one coordinator tells it.
pub(crate) fn all_events(coordinator: SocketAddr) -> Vec<JobEvent> {
    let answer = get(coordinator, "/v1/events?after=0&follow=false");
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = dechunked(&answer.body);
    let data = body.lines().filter_map(|line| line.strip_prefix("data:"));
    data.map(|data| serde_json::from_str(data.trim()).expect("an event")).collect()
}

/// A body without the sizes of its chunks.
fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        whole += &rest[..size];
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
