//! A worker without a coordinator: the simply replicated baseline.

use std::net::{Ipv4Addr, SocketAddr};

use crate::helpers::{Worker, get, published_sum};

#[test]
fn worker_answers_alone() {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let worker = Worker::start(nobody, &[]);
    let answer = get(worker.address, "/sum-of-primes?a=1&b=1000000000&algorithm=sieve");
    assert_eq!((answer.sum(), &answer.json()["tasks"]), (published_sum(9), &1.into()));
    assert_eq!(get(worker.address, "/livez").status, 200);
    assert_eq!(get(worker.address, "/readyz").status, 503, "no coordinator takes its heartbeats");
    let message = get(worker.address, "/sum-of-primes?a=2&b=1").problem(400);
    assert_eq!(message, "a must not be above b, but 2 is above 1");
}
