//! Several coordinators over one PostgreSQL.

use tempfile::TempDir;
use test_postgres::Server;

use super::{Broker, Coordinator, eventually};

/// Several coordinators over one PostgreSQL.
pub(crate) struct Group {
    // Before the results, so that they end first.
    coordinators: Vec<Coordinator>,
    /// The paused coordinators, by index.
    paused: Vec<usize>,
    _results: TempDir,
}

impl Group {
    /// Starts `count` coordinators; one of them leads when this returns.
    pub(crate) fn start(broker: &Broker, count: usize) -> Self {
        let (server, results) = (Server::shared(), TempDir::new().expect("a directory"));
        let (url, place) = (server.url(&server.create_database()), format!("file://{}", results.path().display()));
        let start = |number: usize| {
            let id = format!("coordinator-{number}");
            let own = [("DIVVY_COORDINATOR_ID", id.as_str()), ("DIVVY_STORE_URL", &url), ("DIVVY_RESULTS_URL", &place)];
            Coordinator::start_with(broker, &own)
        };
        let group = Self { coordinators: (0..count).map(start).collect(), paused: Vec::new(), _results: results };
        group.leader();
        group
    }

    fn awake(&self) -> impl Iterator<Item = (usize, &Coordinator)> {
        self.coordinators.iter().enumerate().filter(|(number, _)| !self.paused.contains(number))
    }

    /// The number of the coordinator that leads, once one does.
    pub(crate) fn leader(&self) -> usize {
        eventually("one leads", || {
            self.awake().find(|(_, coordinator)| coordinator.metric("divvy_leader") == 1.0).map(|(number, _)| number)
        })
    }

    /// The coordinator that leads.
    pub(crate) fn leading(&self) -> &Coordinator {
        &self.coordinators[self.leader()]
    }

    /// Number of terms that the coordinators have begun.
    pub(crate) fn takeovers(&self) -> f64 {
        self.awake().map(|(_, coordinator)| coordinator.metric("divvy_takeovers_total")).sum()
    }

    /// Waits until a coordinator follows.
    pub(crate) fn wait_until_follows(&self, number: usize) {
        let is_leader = || self.coordinators[number].metric("divvy_leader");
        eventually("it follows", || (is_leader() == 0.0).then_some(()));
    }

    /// A coordinator that answers.
    pub(crate) fn any(&self) -> &Coordinator {
        self.awake().last().expect("one answers").1
    }

    /// SIGKILL, and started again.
    pub(crate) fn kill_and_start_again(&mut self, number: usize) {
        self.coordinators[number].kill_and_start_again();
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, number: usize) {
        self.coordinators[number].pause();
        self.paused.push(number);
    }

    /// SIGCONT.
    pub(crate) fn wake(&mut self, number: usize) {
        self.coordinators[number].wake();
        self.paused.retain(|paused| *paused != number);
    }

    /// Posts until it is accepted: while nobody leads it is refused.
    pub(crate) fn post(&self, target: &str, body: &str) {
        eventually("a request is accepted", || {
            let (status, answer) = self.any().try_request("POST", target, body);
            assert!(status < 300 || status == 503, "{target}: {status} {answer}");
            (status < 300).then_some(())
        });
    }
}
