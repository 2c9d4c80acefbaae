//! A program that is uploaded while the leader goes away: it is stored by the next one or not at all, and nothing of it is in
//! the way of the same upload again.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{Answer, Group, STEADY_LEASE, Signal, connect, divvy, eventually, heavy, path, request};

/// So long that some parts are on the disk before the last one comes, and a coordinator that passes it on does not hold it.
const BYTES: usize = 60 << 20;

/// Memory that a coordinator may use to pass an upload on: the part that it keeps, and some buffers.
const PASSING_BYTES: u64 = 32 << 20;

struct Uploads {
    group: Group,
    bearer: String,
    program: Vec<u8>,
    hash: String,
    directory: TempDir,
}

/// Whether a socket of a port has a state and queues for which `is_meant` holds.
fn has_socket(port: u16, is_meant: impl Fn(&str, &str) -> bool) -> bool {
    let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux");
    sockets.lines().any(|socket| {
        let fields: Vec<_> = socket.split_whitespace().collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or_default();
        field(1).ends_with(&format!(":{port:04X}")) && is_meant(field(3), field(4))
    })
}

/// Whether a port has a connection.
fn has_connection(port: u16) -> bool {
    has_socket(port, |state, _| state == "01")
}

/// Whether a connection to a port has bytes that its process has not read.
fn has_unread_bytes(port: u16) -> bool {
    let has_unread = |_: &str, queues: &str| {
        queues.split_once(':').is_some_and(|(_, unread)| unread.bytes().any(|digit| digit != b'0'))
    };
    has_socket(port, has_unread)
}

impl Uploads {
    fn start(coordinators: usize) -> Self {
        let directory = TempDir::new().expect("a directory");
        let tokens = directory.path().join("tokens.toml");
        let make = ["token", "new", "ci", "--rights", "read,submit,programs", "--file", path(&tokens)];
        let token = String::from_utf8(divvy(&make).output().expect("run divvy").stdout).expect("a token");
        let settings = [("DIVVY_API_TOKENS_FILE", path(&tokens)), ("DIVVY_ANONYMOUS_READ", "1"), STEADY_LEASE];
        let group = Group::start(coordinators, &settings);
        let mut program = b"\0asm\x01\0\0\0".to_vec();
        program.resize(BYTES, b'x');
        let file = directory.path().join("program.wasm");
        fs::write(&file, &program).expect("write a file");
        let sum = std::process::Command::new("sha256sum").arg(&file).output().expect("this test needs coreutils");
        let hash = String::from_utf8(sum.stdout).expect("digits").split(' ').next().expect("a sum").to_owned();
        let bearer = format!("Bearer {}", token.trim_end());
        Self { group, bearer, program, hash, directory }
    }

    /// Begins to send the program to a coordinator.
    fn begin(&self, number: usize) -> TcpStream {
        let address = self.group.coordinators[number].public;
        let mut stream = connect(address);
        let head = format!(
            "PUT /v1/programs/{} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: {}\r\n\
             content-length: {BYTES}\r\n\r\n",
            self.hash, self.bearer
        );
        stream.write_all(head.as_bytes()).expect("send a head");
        stream
    }

    fn put(&self, number: usize) -> Answer {
        let mut stream = self.begin(number);
        stream.write_all(&self.program).expect("send a body");
        answer(stream)
    }

    fn ask(&self, number: usize) -> Answer {
        let target = format!("/v1/programs/{}", self.hash);
        request(self.group.coordinators[number].public, "GET", &target, &[("authorization", &self.bearer)], "")
    }

    /// Names of the files of programs: those that are whole and those on their way.
    fn files(&self) -> (Vec<String>, Vec<String>) {
        let stores = fs::read_dir(self.group.results().join("programs")).into_iter().flatten().flatten();
        let files = stores.flat_map(|store| fs::read_dir(store.path()).into_iter().flatten().flatten());
        files.map(|file| file.file_name().to_string_lossy().into_owned()).partition(|name| !name.contains('#'))
    }

    /// The program is there at every coordinator, and a worker gets the bytes that were sent.
    fn is_stored(&self) {
        for (number, coordinator) in self.group.coordinators.iter().enumerate() {
            if coordinator.is_running() {
                let shown = eventually("it is shown", || Some(self.ask(number)).filter(|answer| answer.status == 200));
                assert_eq!(shown.json()["bytes"], Value::from(BYTES));
            }
        }
        let store =
            fs::read_dir(self.group.results().join("programs")).expect("a store").flatten().next().expect("one");
        let (whole, _) = self.files();
        assert!(!whole.is_empty());
        // A leader that lost the lead between the file and the row has left another copy.
        for name in whole {
            assert!(name.starts_with(&self.hash), "{name}");
            assert!(fs::read(store.path().join(&name)).expect("a file") == self.program, "{name}");
        }
    }
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer in time");
    Answer::parse(&text)
}

#[test]
fn an_upload_that_a_standby_has_passed_on_is_stored_by_the_next_leader() {
    let mut uploads = Uploads::start(3);
    let leader = uploads.group.leader();
    let standby = (leader + 1) % 3;
    let port = uploads.group.coordinators[leader].public.port();
    // The leader gets the head of the upload while it leads, and nothing of the rest.
    let (mut stream, program) = (uploads.begin(standby), uploads.program.clone());
    eventually("the upload has come to the leader", || has_connection(port).then_some(()));
    uploads.group.coordinators[leader].signal(Signal::STOP);
    let sending = thread::spawn(move || {
        stream.write_all(&program).expect("send a body");
        answer(stream)
    });
    eventually("the upload is on its way", || has_unread_bytes(port).then_some(()));
    uploads.group.coordinators[leader].kill();
    let stored = sending.join().expect("no panic");
    assert_eq!(stored.status, 201, "{stored:?}");
    uploads.is_stored();
    assert_eq!(uploads.put(standby).status, 200, "idempotent");
}

#[test]
fn a_coordinator_that_passes_a_long_upload_on_does_not_hold_it() {
    let _turn = heavy();
    let uploads = Uploads::start(2);
    let number = 1 - uploads.group.leader();
    let standby = &uploads.group.coordinators[number];
    let before = standby.peak_bytes();
    // It is refused where the lead moves meanwhile, as on a machine that stands still.
    eventually("it is stored", || [200, 201].contains(&uploads.put(number).status).then_some(()));
    let grown = standby.peak_bytes() - before;
    eprintln!("{} MiB more at the peak for a program of {} MiB", grown >> 20, BYTES >> 20);
    assert!(grown < PASSING_BYTES, "{} MiB", grown >> 20);
    uploads.is_stored();
}

#[test]
fn an_upload_that_its_leader_takes_half_of_by_way_of_another_coordinator_is_refused_and_can_be_made_again() {
    let mut uploads = Uploads::start(3);
    let leader = uploads.group.leader();
    let standby = (leader + 1) % 3;
    let mut stream = uploads.begin(standby);
    stream.write_all(&uploads.program[..BYTES / 2]).expect("send half a body");
    eventually("some of it is on the disk", || (!uploads.files().1.is_empty()).then_some(()));
    uploads.group.coordinators[leader].kill();
    let refused = answer(stream);
    assert!(refused.head.contains("\r\nretry-after: "), "{refused:?}");
    refused.problem(503);
    uploads.group.leader_after(leader);
    assert!(uploads.files().0.is_empty());
    assert_eq!(uploads.put(standby).status, 201);
    uploads.is_stored();
}

#[test]
fn an_upload_that_its_client_gives_up_half_way_is_given_up_by_the_leader() {
    let uploads = Uploads::start(2);
    let leader = uploads.group.leader();
    let mut stream = uploads.begin(1 - leader);
    stream.write_all(&uploads.program[..BYTES / 2]).expect("send half a body");
    eventually("some of it is on the disk", || (!uploads.files().1.is_empty()).then_some(()));
    drop(stream);
    eventually("nothing of it is on its way", || uploads.files().1.is_empty().then_some(()));
    assert_eq!(uploads.ask(leader).status, 404);
    assert_eq!(uploads.put(1 - leader).status, 201);
    uploads.is_stored();
}

#[test]
fn an_upload_that_its_leader_took_half_of_is_not_there_and_can_be_made_again() {
    let mut uploads = Uploads::start(2);
    let leader = uploads.group.leader();
    let mut stream = uploads.begin(leader);
    stream.write_all(&uploads.program[..BYTES / 2]).expect("send half a body");
    eventually("some of it is on the disk", || (!uploads.files().1.is_empty()).then_some(()));
    uploads.group.coordinators[leader].kill();
    let next = uploads.group.leader_after(leader);
    assert_eq!(uploads.ask(next).status, 404);
    assert!(uploads.files().0.is_empty());
    assert_eq!(uploads.put(next).status, 201);
    uploads.group.start_again(leader);
    uploads.is_stored();
}

#[test]
fn the_command_makes_an_upload_again_that_its_coordinator_died_with() {
    let mut uploads = Uploads::start(1);
    let address = uploads.group.coordinators[0].public;
    // It takes the upload, and nothing comes of it.
    uploads.group.coordinators[0].signal(Signal::STOP);
    let file = uploads.directory.path().join("program.wasm");
    let token = uploads.bearer.trim_start_matches("Bearer ");
    let mut put = divvy(&["program", "put", path(&file)]);
    put.env("DIVVY_URL", format!("http://{address}")).env("DIVVY_TOKEN", token);
    let put = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run divvy");
    eventually("the upload is on its way", || has_unread_bytes(address.port()).then_some(()));
    uploads.group.coordinators[0].kill();
    uploads.group.start_again(0);
    let done = put.wait_with_output().expect("it ends");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim_end(), uploads.hash);
    uploads.is_stored();
}

#[test]
fn an_upload_that_ends_after_its_leader_lost_the_lead_is_refused_or_stored_whole() {
    let uploads = Uploads::start(2);
    let leader = uploads.group.leader();
    let mut stream = uploads.begin(leader);
    let (half, rest) = uploads.program.split_at(BYTES / 2);
    stream.write_all(half).expect("send half a body");
    eventually("some of it is on the disk", || (!uploads.files().1.is_empty()).then_some(()));
    uploads.group.coordinators[leader].signal(Signal::STOP);
    let next = uploads.group.leader_after(leader);
    uploads.group.coordinators[leader].signal(Signal::CONT);
    uploads.group.coordinators[leader].logged("this coordinator follows");
    stream.write_all(rest).expect("send the rest");
    let refused = answer(stream);
    assert!(refused.head.contains("\r\nretry-after: "), "{refused:?}");
    refused.problem(503);
    eventually("nothing of it is on its way", || uploads.files().1.is_empty().then_some(()));
    assert_eq!(uploads.ask(next).status, 404);
    // The same upload again, by way of the former leader.
    let again = uploads.put(leader);
    assert!([200, 201].contains(&again.status), "{again:?}");
    uploads.is_stored();
}
