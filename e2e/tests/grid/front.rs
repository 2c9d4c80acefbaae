//! `divvy-coordinator front`: what clients of a grid with one coordinator notice while that is stopped, killed and started
//! again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::doors::{Files, NAME};
use crate::helpers::{
    Answer, Coordinator, Process, Signal, Worker, command, connect, divvy, eventually, own_address, published_sum,
    send, try_request,
};

/// Longer than a client of the grid gives a connection without TLS to open.
const LONG_OUTAGE: Duration = Duration::from_secs(6);

struct Front {
    process: Process,
    address: SocketAddr,
}

impl Front {
    fn before(coordinator: SocketAddr) -> Self {
        let mut command = command("divvy-coordinator");
        command.arg("front").env("DIVVY_LOG_FORMAT", "json");
        command.env("DIVVY_PUBLIC_ADDR", own_address()).env("DIVVY_FRONT_TARGET", coordinator.to_string());
        let process = Process::spawn(&mut command);
        let address = process.logged("serving")["address"].as_str().and_then(|address| address.parse().ok());
        Self { address: address.expect("an address"), process }
    }
}

#[test]
fn no_question_fails_while_the_one_coordinator_is_stopped_and_killed() {
    let mut coordinator = Coordinator::start_to_stay(&[]);
    let _workers = [Worker::join(&coordinator, &[]), Worker::join(&coordinator, &[])];
    let front = Front::before(coordinator.public);
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = || {
        while !is_over.load(Ordering::Relaxed) {
            // Over a connection of its own, as clients without a pool ask.
            let answer = try_request(front.address, "GET", "/sum-of-primes?a=1&b=1000000", &[], "");
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.sum(), published_sum(6));
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for round in 0..4 {
            let goal = answered.load(Ordering::Relaxed) + 12;
            let is_reached = || (answered.load(Ordering::Relaxed) >= goal).then_some(());
            eventually("answers come", is_reached);
            if round % 2 == 0 {
                coordinator.signal(Signal::TERM);
                assert_eq!(coordinator.exit_status().code(), Some(0));
            } else {
                coordinator.kill();
            }
            coordinator.start_again(&[]);
        }
        let goal = answered.load(Ordering::Relaxed) + 12;
        eventually("answers come again", || (answered.load(Ordering::Relaxed) >= goal).then_some(()));
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("no question failed"));
    });
}

/// The front passes TLS on, so that the handshake of a client lasts until the coordinator is back.
#[test]
fn command_over_tls_waits_for_a_coordinator_that_is_away_for_long() {
    let files = Files::new();
    let (ca, cert, key) = (files.path("ca.pem"), files.path("cert.pem"), files.path("key.pem"));
    let listener = [("DIVVY_TLS_CERT", &*cert), ("DIVVY_TLS_KEY", &*key)];
    let mut coordinator = Coordinator::start_to_stay(&listener);
    let front = Front::before(coordinator.public);
    coordinator.kill();
    let url = format!("https://{}", front.address);
    let mut asking = divvy(&["worker", "list", "--coordinator", &url]);
    asking.envs([("DIVVY_CA_FILE", &*ca), ("DIVVY_TLS_SERVER_NAME", NAME)]).stdout(Stdio::null());
    let mut asking = Process::spawn(&mut asking);
    thread::sleep(LONG_OUTAGE);
    coordinator.start_again(&listener);
    assert_eq!(asking.exit_status().code(), Some(0), "{:?}", asking.log());
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Reads a request up to the end of its head.
fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).expect("a request");
        assert_ne!(length, 0, "the connection ended: {text:?}");
        text.push_str(std::str::from_utf8(&piece[..length]).expect("UTF-8"));
    }
    text
}

#[test]
fn request_that_a_coordinator_took_and_left_is_sent_again_only_if_that_does_no_harm() {
    let listener = TcpListener::bind(own_address()).expect("bind");
    let front = Front::before(listener.local_addr().expect("an address"));
    let accept = || listener.accept().expect("a connection").0;

    let question = send(front.address, "GET", "/workers", &[], "");
    let first = read_request(&mut accept());
    let mut again = accept();
    assert_eq!(read_request(&mut again), first);
    again.write_all(ANSWER).expect("answer");
    drop(again);
    assert_eq!(question.answer().body, "ok");

    let mut order = connect(front.address);
    order.write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").expect("send");
    assert!(read_request(&mut accept()).starts_with("POST "));
    let mut answer = Vec::new();
    // Its connection ends or is reset.
    let _ = order.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "", "it may have been done");

    let mut both = connect(front.address);
    let order = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    both.write_all(format!("GET /workers HTTP/1.1\r\nhost: x\r\n\r\n{order}").as_bytes()).expect("send");
    assert!(read_request(&mut accept()).starts_with("GET "));
    let mut answer = Vec::new();
    let _ = both.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "", "there is an order behind the question");

    let named = send(front.address, "POST", "/v1/jobs", &[("idempotency-key", "7")], "");
    let first = read_request(&mut accept());
    let mut again = accept();
    assert_eq!(read_request(&mut again), first, "it has a name");
    again.write_all(ANSWER).expect("answer");
    drop(again);
    assert_eq!(named.answer().body, "ok");

    let question = send(front.address, "GET", "/livez", &[], "");
    assert!(read_request(&mut accept()).starts_with("GET /livez "), "the order was not sent again");
    drop(question);
}

#[test]
fn front_that_is_stopped_takes_no_connection_and_lets_open_ones_end() {
    let coordinator = Coordinator::start(&[("DIVVY_EVICT_AFTER_MS", "600000")]);
    let worker = Worker::join(&coordinator, &[]);
    let mut front = Front::before(coordinator.public);
    // The request stays in flight for as long as this test needs.
    worker.signal(Signal::STOP);
    let sum = send(front.address, "GET", "/sum-of-primes?a=1&b=1000000&algorithm=sieve", &[], "");
    eventually("it is leased", || (coordinator.busy() > 0).then_some(()));
    front.process.signal(Signal::TERM);
    eventually("it takes no more", || TcpStream::connect(front.address).is_err().then_some(()));
    worker.signal(Signal::CONT);
    let answer: Answer = sum.answer();
    assert_eq!(answer.sum(), published_sum(6));
    assert_eq!(front.process.exit_status().code(), Some(0));
}
