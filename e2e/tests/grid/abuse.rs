//! Clients that are slow, silent, too big or no HTTP at all: their connections end and others are served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use api::{MAX_HEARTBEAT_BYTES, MAX_LEASE_BYTES};

use crate::helpers::{Coordinator, Worker, connect, eventually, get, published_sum, request};

/// Interval between two bytes of a slow client.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);

/// Longest time for which a slow client may hold a connection: the largest limit of the services is 75 s, for an idle connection.
const HOLD_LIMIT: Duration = Duration::from_secs(90);

/// The header that a body needs to be read.
const JSON: &str = "content-type: application/json";

#[test]
fn clients_that_leave_or_send_garbage_are_no_errors_of_the_service() {
    const OF_CLIENTS: [&str; 2] = ["Response payload stream error", "stream error: "];
    let log_of = |filter: &str, said: &[&str]| {
        let coordinator = Coordinator::start(&[("DIVVY_LOG", filter)]);
        let before = coordinator.metric("divvy_event_subscriptions");
        for _ in 0..10 {
            let mut follower = connect(coordinator.public);
            follower.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("room");
            assert!(follower.read(&mut [0; 4096]).expect("an answer") > 0);
            let mut garbage = connect(coordinator.public);
            garbage.write_all(b"\x16\x03\x01\x02\r\n\r\n").expect("room");
            let mut answer = Vec::new();
            garbage.read_to_end(&mut answer).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
        }
        coordinator.wait_for_metric("divvy_event_subscriptions", before);
        // A line may come after what it tells of.
        eventually("the log says what it must", || {
            let log = coordinator.log();
            said.iter().all(|text| log.iter().any(|line| line.contains(text))).then_some(log)
        })
    };
    log_of("info,actix_http=error", &OF_CLIENTS);
    let errors: Vec<_> = log_of("info", &[]).into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn head_that_drips_ends_its_connection() {
    on_every_port(|port| drip(connect(port), b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ", b'y'));
}

#[test]
fn second_head_that_drips_ends_its_connection() {
    on_every_port(|port| {
        let mut stream = connect(port);
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send a request");
        let read = stream.read(&mut [0; 4096]).expect("an answer");
        assert!(read > 0);
        drip(stream, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ", b'y');
    });
}

#[test]
fn body_that_drips_ends_its_connection() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let attacks = [
        (coordinator.internal, "PUT /worker/register/slow HTTP/1.1"),
        (worker.address, "POST /lease HTTP/1.1"),
        (coordinator.public, "GET /workers HTTP/1.1"),
        (coordinator.public, "POST /nowhere HTTP/1.1"),
    ];
    thread::scope(|scope| {
        for (port, head) in attacks {
            scope.spawn(move || {
                let head = format!("{head}\r\nhost: localhost\r\n{JSON}\r\ncontent-length: 4000\r\n\r\n");
                drip(connect(port), head.as_bytes(), b' ');
            });
            scope.spawn(move || {
                let head = format!("{head}\r\nhost: localhost\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n");
                drip(connect(port), head.as_bytes(), b' ');
            });
        }
    });
    assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
}

#[test]
fn client_that_reads_no_answer_is_cut_off() {
    let coordinator = Coordinator::start(&[]);
    let mut stream = connect(coordinator.public);
    stream.set_write_timeout(Some(HOLD_LIMIT)).expect("set a timeout");
    let asked_at = Instant::now();
    // Answers pile up until the service stops reading, then requests do, then the connection ends.
    let error = loop {
        if let Err(error) = stream.write_all(b"GET /workers HTTP/1.1\r\nhost: localhost\r\n\r\n") {
            break error;
        }
        assert!(asked_at.elapsed() < HOLD_LIMIT, "still connected");
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(get(coordinator.public, "/livez").status, 200);
}

#[test]
fn job_of_a_client_that_left_more_requests_than_anyone_reads_is_canceled() {
    let coordinator = Coordinator::start(&[]);
    let _worker = Worker::join(&coordinator, &[]);
    let mut stream = connect(coordinator.public);
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("set a timeout");
    stream
        .write_all(b"GET /sum-of-primes?a=0&b=18446744073709551615&algorithm=sieve HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .expect("send");
    eventually("it computes", || (coordinator.busy() > 0).then_some(()));
    let flood = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    while stream.write_all(&flood).is_ok() {}
    drop(stream);
    eventually("nobody computes", || (coordinator.busy() == 0).then_some(()));
}

#[test]
fn garbage_is_answered_with_400_and_harms_nobody() {
    on_every_port(|port| {
        for garbage in
            [&b"\0\x01\x02\xff\xfe\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n"]
        {
            let mut stream = connect(port);
            stream.write_all(garbage).expect("send garbage");
            // A client that says no more: what came so far is all there is.
            stream.shutdown(Shutdown::Write).expect("close one side");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the connection ends");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    });
}

#[test]
fn head_that_is_too_long_is_refused() {
    on_every_port(|port| {
        let mut stream = connect(port);
        let head = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "y".repeat(1 << 20));
        // The service may refuse it before it has all of it.
        let _ = stream.write_all(head.as_bytes());
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 431");
    });
}

#[test]
fn body_that_is_too_long_is_refused() {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let body = " ".repeat(3 << 20);
    for (port, method, path, most) in [
        (coordinator.internal, "PUT", "/worker/register/big", MAX_HEARTBEAT_BYTES),
        (worker.address, "POST", "/lease", MAX_LEASE_BYTES),
    ] {
        let message = request(port, method, path, &[], &body).problem(413);
        assert_eq!(message, format!("the body is longer than {most} bytes"));
        let mut stream = connect(port);
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("send a head");
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        let started_at = Instant::now();
        while stream.write_all(chunk.as_bytes()).is_ok() {
            assert!(started_at.elapsed() < HOLD_LIMIT, "still read");
        }
    }
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let coordinator = Coordinator::start(&[]);
    let ask = |target: &str| get(coordinator.public, target);
    assert!(ask("/sum-of-primes?a=1").problem(400).starts_with("b is missing"));
    assert!(ask("/sum-of-primes?a=1&a=2&b=3").problem(400).starts_with("a is given more than once"));
    assert!(ask("/sum-of-primes?a=-1&b=3").problem(400).starts_with("a must be an integer from 0 to"));
    assert!(ask("/sum-of-primes?a=1&b=18446744073709551616").problem(400).contains("but is larger"));
    assert_eq!(ask("/sum-of-primes?a=2&b=1").problem(400), "a must not be above b, but 2 is above 1");
    assert_eq!(ask("/sums").problem(404), "there is nothing at /sums");
    let refused = request(coordinator.public, "POST", "/sum-of-primes?a=1&b=2", &[], "");
    assert_eq!(refused.problem(405), "this path takes GET, HEAD only");
    assert!(refused.head.contains("\r\nallow: get, head\r\n"), "{refused:?}");
    let unknown = request(coordinator.internal, "PUT", "/worker/register/a%2Fb", &[], "{}");
    assert!(unknown.problem(400).starts_with("worker_id is wrong"), "{unknown:?}");
    let body = request(coordinator.internal, "PUT", "/worker/register/x", &[], "{");
    assert!(body.problem(400).starts_with("the body is not valid"), "{body:?}");
}

#[test]
fn internal_paths_are_not_on_the_public_port() {
    let coordinator = Coordinator::start(&[]);
    assert_eq!(get(coordinator.public, "/metrics").status, 404);
    assert_eq!(request(coordinator.public, "PUT", "/worker/register/x", &[], "{}").status, 404);
    assert_eq!(get(coordinator.internal, "/sum-of-primes?a=1&b=2").status, 404);
}

#[test]
fn requests_for_paths_that_do_not_exist_leave_nothing_behind() {
    let coordinator = Coordinator::start(&[]);
    let mut stream = connect(coordinator.public);
    let mut ask = || {
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"}") {
            let length = stream.read(&mut piece).expect("an answer");
            assert!(length > 0, "the connection has ended");
            answer.extend_from_slice(&piece[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    };
    (0..1_000).for_each(|_| ask());
    let before = coordinator.peak_bytes();
    (0..10_000).for_each(|_| ask());
    let grown = coordinator.peak_bytes() - before;
    eprintln!("{} KiB more at the peak", grown >> 10);
    // The names of the patterns' parameters are 2 KiB: kept for each request they would be 20 MiB.
    assert!(grown < (10 << 20), "{} MiB", grown >> 20);
}

/// Tries the three ports of a grid at the same time, then that the grid still works.
fn on_every_port(attack: impl Fn(SocketAddr) + Sync) {
    let coordinator = Coordinator::start(&[]);
    let worker = Worker::join(&coordinator, &[]);
    let attack = &attack;
    thread::scope(|scope| {
        for port in [coordinator.public, coordinator.internal, worker.address] {
            scope.spawn(move || attack(port));
        }
    });
    assert_eq!(coordinator.sum(1, 1000).sum(), published_sum(3));
}

/// Sends `start` and then one byte at a time until the connection ends, which must be in time.
fn drip(mut stream: TcpStream, start: &[u8], byte: u8) {
    let started_at = Instant::now();
    stream.write_all(start).expect("send the start");
    while started_at.elapsed() < HOLD_LIMIT {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        sleep(DRIP_INTERVAL);
    }
    panic!("still connected after {HOLD_LIMIT:?}");
}
