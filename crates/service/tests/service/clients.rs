//! Clients that close a half, leave, flood, are slow, or send more than fits.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use service::{Limits, Listener};

use crate::helpers::{Answer, Options, Service, read_to_end, read_up_to, start, wait_until};

const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn begun(service: &Service, count: u64) {
    wait_until("begun", || service.shared.begun.load(SeqCst) == count);
}

fn dropped(service: &Service, count: u64) {
    wait_until("dropped", || service.shared.dropped.load(SeqCst) == count);
}

#[test]
fn a_client_that_closes_its_sending_half_gets_its_answer() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    begun(&service, 1);
    // The service asks once a second whether the client is there. The client sees nothing of it, so time has to pass.
    thread::sleep(Duration::from_millis(1_500));
    service.shared.go_on.notify_waiters();
    let answer = read_to_end(&mut stream);
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    assert_eq!(service.shared.dropped.load(SeqCst), 0);
}

#[test]
fn an_answer_that_comes_soon_is_all_that_a_half_closed_client_gets() {
    // The first probe comes later than the answer, however slow the machine is.
    let limits = Limits { ask_after: Duration::from_secs(60), ..Limits::default() };
    let service = start(Options { limits, ..Options::default() });
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    begun(&service, 1);
    // The service shows nothing when it reads the half-close: by now it has.
    thread::sleep(Duration::from_millis(100));
    service.shared.go_on.notify_waiters();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("done"), "{answer}");
}

#[test]
fn a_client_that_closes_its_half_in_the_middle_of_its_wait_gets_its_answer() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    begun(&service, 1);
    stream.shutdown(Shutdown::Write).expect("half-close");
    // The service shows nothing when it reads the half-close: by now it has.
    thread::sleep(Duration::from_millis(100));
    service.shared.go_on.notify_waiters();
    assert_eq!(read_to_end(&mut stream).body, "done");
}

#[test]
fn a_half_closed_client_gets_what_it_was_sent_for_and_a_stream() {
    let service = start(Options::default());
    let mut stream = service.connect();
    let body = r#"{"name": "n"}"#;
    let head = "POST /things HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 13";
    write!(stream, "{head}\r\n\r\n{body}").expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(read_to_end(&mut stream).status, 201);

    let mut stream = service.connect();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    read_up_to(&mut stream, "line 0\n");
    service.shared.go_on.notify_waiters();
    read_up_to(&mut stream, "line 1\n");
}

#[test]
fn a_client_that_leaves_ends_its_handler() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    begun(&service, 1);
    drop(stream);
    dropped(&service, 1);
    wait_until("told", || service.shared.closed.load(SeqCst) == 1);

    // A client that closes its half first and leaves later is noticed, too.
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    begun(&service, 2);
    // The service shows nothing when it reads the half-close: by now it has.
    thread::sleep(Duration::from_millis(100));
    drop(stream);
    dropped(&service, 2);
}

#[test]
fn a_connection_that_idles_tells_its_end() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    begun(&service, 1);
    service.shared.go_on.notify_waiters();
    read_up_to(&mut stream, "done");
    assert_eq!(service.shared.closed.load(SeqCst), 0);
    drop(stream);
    wait_until("told", || service.shared.closed.load(SeqCst) == 1);
}

#[test]
fn a_client_that_cannot_be_asked_is_owed_its_answer_for_a_while() {
    let service = start(Options::default());
    let old = b"GET /slow HTTP/1.0\r\nhost: localhost\r\n\r\n";
    let mut stream = service.connect();
    stream.write_all(old).expect("send");
    stream.shutdown(Shutdown::Write).expect("half-close");
    begun(&service, 1);
    service.shared.go_on.notify_waiters();
    assert_eq!(read_to_end(&mut stream).body, "done");

    let limits = Limits { half_closed_timeout: Duration::from_millis(700), ..Limits::default() };
    let service = start(Options { limits, ..Options::default() });
    let mut stream = service.connect();
    stream.write_all(old).expect("send");
    begun(&service, 1);
    drop(stream);
    dropped(&service, 1);
}

#[test]
fn a_client_that_leaves_a_stream_ends_it_with_the_next_line() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    begun(&service, 1);
    read_up_to(&mut stream, "line 0\n");
    drop(stream);
    // The host's reset must arrive before the next line is sent, and nothing shows that it did.
    thread::sleep(Duration::from_millis(50));
    service.shared.go_on.notify_waiters();
    dropped(&service, 1);
}

#[test]
fn a_stream_may_last_longer_than_a_connection_may_idle() {
    let limits = Limits {
        keep_alive: Duration::from_millis(200),
        // Long enough for a head on a busy machine.
        head_timeout: Duration::from_secs(2),
        watch_interval: Duration::from_millis(50),
        ..Limits::default()
    };
    let service = start(Options { limits, ..Options::default() });
    let mut stream = service.connect();
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    read_up_to(&mut stream, "line 0\n");
    // Time is the subject: the stream is silent for longer than an idle connection may be.
    thread::sleep(Duration::from_secs(3));
    service.shared.go_on.notify_waiters();
    read_up_to(&mut stream, "line 1\n");
}

#[test]
fn a_client_that_floods_is_cut_with_its_request() {
    let service = start(Options::default());
    let mut stream = service.connect();
    stream.write_all(SLOW).expect("send");
    begun(&service, 1);
    let flood = b"GET /whoami HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    stream.set_write_timeout(Some(Duration::from_millis(100))).expect("set");
    let mut sent = 0;
    // The client sends until the connection breaks, or accepts nothing more for a while.
    while sent < 100_000_000 {
        match stream.write(&flood) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    dropped(&service, 1);
    assert!(sent < 100_000_000, "{sent} bytes of requests were taken");
}

#[test]
fn uploads_that_are_read_late_all_get_an_answer() {
    const UPLOADS: usize = 20;
    const BYTES: usize = 4 << 20;
    let service = start(Options { read_after: Duration::from_secs(4), ..Options::default() });
    let send = |stream: &mut std::net::TcpStream| {
        write!(
            stream,
            "POST /upload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {BYTES}\r\n\r\n"
        )?;
        stream.write_all(&vec![b'x'; BYTES])
    };
    thread::scope(|scope| {
        let uploads: Vec<_> = (0..UPLOADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = service.connect();
                    send(&mut stream).expect("send");
                    read_to_end(&mut stream)
                })
            })
            .collect();
        for upload in uploads {
            let answer = upload.join().expect("joined");
            assert_eq!((answer.status, answer.body), (200, BYTES.to_string()));
        }
    });
    assert_eq!(service.shared.budget.free_bytes(), 256 << 20);
}

#[test]
fn bodies_share_one_budget_which_they_give_back() {
    let service = start(Options { budget_bytes: 10 << 20, ..Options::default() });
    let head = |length: usize| format!("POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    let mut first = service.connect();
    first.write_all(head(8 << 20).as_bytes()).expect("send");
    wait_until("reserved", || service.shared.budget.free_bytes() == 2 << 20);

    let mut second = service.connect();
    second.write_all(head(3 << 20).as_bytes()).expect("send");
    let refused = read_to_end(&mut second);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.detail().contains("bodies in flight"), "{refused:?}");

    // A body without a length takes memory as it comes, until there is no more.
    let mut chunked = service.connect();
    write!(chunked, "POST /upload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").expect("send");
    for _ in 0..3 {
        let _ = write!(chunked, "{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    }
    assert_eq!(read_to_end(&mut chunked).status, 503);

    let small = service.post("/upload", &[], &"x".repeat(60_000));
    assert_eq!((small.status, small.body.as_str()), (200, "60000"));

    first.shutdown(Shutdown::Both).expect("leave");
    wait_until("given back", || service.shared.budget.free_bytes() == 10 << 20);
    assert_eq!(service.post("/upload", &[], &"x".repeat(9 << 20)).body, (9 << 20).to_string());
}

#[test]
fn a_listener_that_stops_finishes_what_is_in_flight_and_closes_what_idles() {
    // Connections learn of the stop in any order: the end of the idle one does not show that the busy one knows.
    let says_close = (0..20).any(|_| stop_beside_a_request().header("connection") == Some("close"));
    assert!(says_close, "the connection of an answer during a stop is closed without a word");
}

/// Stops a service with a request in flight and an idle connection. Returns the answer, behind which the connection ends.
fn stop_beside_a_request() -> Answer {
    let service = start(Options::default());
    let mut busy = service.connect();
    busy.write_all(SLOW).expect("send");
    begun(&service, 1);
    let mut idle = service.connect();
    write!(idle, "GET /whoami HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    read_up_to(&mut idle, "nobody");
    let stopping = thread::spawn(service.stop());
    assert_eq!(idle.read(&mut [0]).expect("closed"), 0);
    service.shared.go_on.notify_waiters();
    let answer = read_to_end(&mut busy);
    assert_eq!(answer.body, "done");
    stopping.join().expect("stopped");
    answer
}

#[test]
fn many_connections_that_come_at_once_wait_to_be_accepted() {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    // The listener accepts no connection, so the kernel does not answer a connection beyond the backlog.
    let connect = |_| TcpStream::connect_timeout(&listener.address(), Duration::from_secs(60)).expect("room");
    let connections: Vec<_> = (0..500).map(connect).collect();
    assert_eq!(connections.len(), 500);
}
