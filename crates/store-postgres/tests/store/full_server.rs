//! A server without a free connection.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use store::{JobFilter, ReadError, Shared, Store, SubmitError, WriteError};
use store_postgres::{PostgresStore, StoreSettings};
use tempfile::TempDir;
use test_postgres::Server;

use crate::helpers::*;

/// A server with a few connections, whose last one is not for the coordinators.
struct Small {
    server: Server,
    results: TempDir,
    takers: Vec<Child>,
}

impl Small {
    fn start() -> Self {
        let server = Server::start(&["max_connections=14", "superuser_reserved_connections=1"]);
        server.psql("postgres", "CREATE ROLE app LOGIN");
        server.psql("postgres", "CREATE DATABASE app OWNER app");
        Self { server, results: TempDir::new().expect("there is room"), takers: Vec::new() }
    }

    fn settings(&self) -> StoreSettings {
        let url = format!("postgres://app@{}/app?sslmode=disable", self.server.address());
        // A busy machine does not end this lease.
        StoreSettings { lease: Duration::from_hours(1), ..settings(&url, &self.results) }
    }

    fn open(&self) -> PostgresStore {
        store_postgres::open(&self.settings()).expect("the database is fine")
    }

    /// Takes all connections.
    async fn fill(&mut self) {
        let since = Instant::now();
        let taken = || self.server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'");
        while taken() != "13" {
            assert!(since.elapsed() < Duration::from_secs(60), "there are connections left");
            let mut taker = self.server.psql_command("app", "SELECT pg_sleep(600)");
            taker.args(["-U", "app"]).stderr(Stdio::null());
            self.takers.push(taker.spawn().expect("psql is there"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Frees what was taken.
    fn free(&mut self) {
        // The statement of a client that is gone goes on.
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
        self.server.psql("postgres", end);
        for mut taker in self.takers.drain(..) {
            let _ = taker.kill();
            let _ = taker.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_connections_taken_the_leader_and_reads_go_on_and_what_needs_another_one_does_once_it_is_free() {
    let mut small = Small::start();
    let shared = small.open();
    let mut leadership = shared.leadership();
    let term = acquire_free(&mut *leadership, 1);
    // On a thread of its own, as the leader does, while the connections are taken.
    let is_over = Arc::new(AtomicBool::new(false));
    let renewing = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(leadership.renew(term.epoch).map(|renewed| renewed.epoch), Ok(term.epoch));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let store = Store::start(shared.lead(term.epoch).expect("it leads"), KEEP_ALL).expect("a thread");
    store.submit(range_job(1, 10)).await.expect("room");
    // One connection for reads, and none for lists.
    assert!(store.job(id(1)).await.is_ok_and(|job| job.is_some()));
    small.fill().await;
    for round in 0..10 {
        store.commit(completed(id(1), round..round + 1, 1)).await.expect("its connection is its own");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for read in join_all((0..8).map(|_| store.job(id(1)))).await {
        assert!(read.is_ok_and(|job| job.is_some()), "they take turns with the one connection");
    }
    let refused = store.jobs(JobFilter::default(), None, 5).await;
    let is_told = |error: &ReadError| error.to_string().contains("all connections are taken");
    assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
    is_over.store(true, Ordering::Relaxed);
    renewing.join().expect("its connection is its own");
    small.free();
    let since = Instant::now();
    while store.jobs(JobFilter::default(), None, 5).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "lists are never read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_connections_taken_a_follower_leads_with_the_connection_that_it_has_submitted_with() {
    let mut small = Small::start();
    let shared = small.open();
    let follower = Store::follow(shared.follow().expect("reachable"), KEEP_ALL).expect("a thread");
    follower.submit(range_job(1, 10)).await.expect("room");
    let mut leadership = shared.leadership();
    let term = acquire_free(&mut *leadership, 1);
    small.fill().await;
    // The follower uses the connection now and then to look whether the database answers.
    let parts = eventually("it leads", || shared.lead(term.epoch).map_err(|error| error.to_string()));
    let leader = Store::start(parts, KEEP_ALL).expect("a thread");
    leader.commit(completed(id(1), 0..1, 7)).await.expect("it leads");
    leader.submit(range_job(2, 10)).await.expect("it leads");
    let refused = follower.submit(range_job(3, 10)).await;
    assert!(matches!(refused, Err(SubmitError::Write(WriteError::Unavailable(_)))), "{refused:?}");
    small.free();
    let since = Instant::now();
    while follower.submit(range_job(3, 10)).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "the follower never submits again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(record_of(&leader, id(1)).await.value, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_free_connection_and_says_what_to_raise_if_none_comes() {
    let mut small = Small::start();
    small.fill().await;
    let impatient = StoreSettings { patience: Duration::ZERO, ..small.settings() };
    let error = store_postgres::open(&impatient).expect_err("there is no connection").to_string();
    assert!(error.contains("all connections are taken") && error.contains("raise max_connections"), "{error}");
    assert!(error.contains("up to 11 connections"), "docs/operation.md has this number: {error}");

    let patient = StoreSettings { patience: Duration::from_mins(1), ..small.settings() };
    let opening = tokio::task::spawn_blocking(move || store_postgres::open(&patient).map(drop));
    small.free();
    opening.await.expect("no panic").expect("there are connections again");
}
