//! The place of large results at the start.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::{OBJECT, directory, line_with};

#[test]
fn start_warns_of_a_place_of_results_that_is_not_the_one_of_the_others() {
    let (server, theirs, own) = (test_postgres::Server::shared(), directory(), directory());
    let database = server.create_database();
    let place = |directory: &tempfile::TempDir| url::Url::from_directory_path(directory.path()).expect("a path");
    let settings = store_postgres::StoreSettings {
        url: server.url(&database),
        results_url: Some(place(&theirs)),
        lease: store::shared::LEASE,
        patience: std::time::Duration::ZERO,
    };
    drop(store_postgres::open(&settings).expect("it is empty"));
    let values = format!("VALUES (1, '{OBJECT}', 3, decode(repeat('00', 32), 'hex'))");
    server.psql(&database, &format!("INSERT INTO divvy.results (job, object, bytes, sha256) {values}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    command.env("DIVVY_STORE_URL", server.url(&database)).env("DIVVY_RESULTS_URL", place(&own).as_str());
    command.env("DIVVY_DATA_DIR", own.path());
    let warning = line_with(&mut command, OBJECT);
    assert!(warning.contains("WARN") && warning.contains("DIVVY_RESULTS_URL"), "{warning}");
}

/// Ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_standby_warns_of_a_place_that_is_not_the_leaders_though_nothing_is_stored_there() {
    let (server, theirs, own) = (test_postgres::Server::shared(), directory(), directory());
    let database = server.create_database();
    let with_results_in = |directory: &tempfile::TempDir| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
        let place = url::Url::from_directory_path(directory.path()).expect("a path");
        command.env("DIVVY_STORE_URL", server.url(&database)).env("DIVVY_RESULTS_URL", place.as_str());
        command.env("DIVVY_DATA_DIR", directory.path());
        // A busy machine does not move the lead.
        command.env("DIVVY_LEADERSHIP_LEASE_MS", "8000").stderr(Stdio::piped());
        command
    };
    let mut leader = Running(with_results_in(&theirs).spawn().expect("run the service"));
    let mut lines = BufReader::new(leader.0.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("this coordinator leads")));
    std::thread::spawn(move || lines.for_each(drop));
    let warning = line_with(&mut with_results_in(&own), "another place of results");
    assert!(warning.contains("WARN") && warning.contains("DIVVY_RESULTS_URL"), "{warning}");
}

/// A coordinator whose results are in S3 at this address.
fn with_results_in_s3(endpoint: &str, data: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
    command.env("DIVVY_PUBLIC_ADDR", "127.0.0.1:0").env("DIVVY_INTERNAL_ADDR", "127.0.0.1:0");
    command.env("DIVVY_DATA_DIR", data.path()).env("DIVVY_RESULTS_URL", "s3://bucket/some");
    command.env("AWS_ENDPOINT", format!("http://{endpoint}")).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "us-east-1");
    command
}

/// A server that answers each request, told by its first line, with a status, until the tests end.
fn answering(answer: impl Fn(&str) -> &'static str + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            while !is_whole(&request) {
                match stream.read(&mut piece) {
                    Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
                    Ok(_) | Err(_) => break,
                }
            }
            let status = answer(&String::from_utf8_lossy(&request));
            let body = if status.starts_with("200") { "[]" } else { "" };
            let length = body.len();
            // The client may have left.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"1\"\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

/// Whether a request has come with its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length: Option<usize> = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// The first line about the place of results. On a busy machine an answer of the place may come too late: then again.
fn told_of_place(command: impl Fn() -> Command) -> String {
    let mut told = (0..5).map(|_| line_with(&mut command(), "DIVVY_RESULTS_URL"));
    told.find(|line| !line.contains("does not answer")).expect("it answers in time")
}

#[test]
fn start_is_refused_where_the_place_of_results_does_not_exist_or_refuses_the_keys() {
    let data = directory();
    for status in ["404 Not Found", "403 Forbidden", "401 Unauthorized"] {
        let endpoint = answering(move |_| status);
        let told = told_of_place(|| with_results_in_s3(&endpoint, &data));
        assert!(told.starts_with("error: results cannot be stored at s3://bucket/some: "), "{status}: {told}");
    }
}

#[test]
fn start_goes_on_with_a_warning_where_the_place_of_results_does_not_answer() {
    let data = directory();
    // No process listens on port 1.
    let warning = line_with(&mut with_results_in_s3("127.0.0.1:1", &data), "DIVVY_RESULTS_URL");
    assert!(warning.contains("WARN") && warning.contains("s3://bucket/some"), "{warning}");
    let serving = line_with(&mut with_results_in_s3("127.0.0.1:1", &data), "serving");
    assert!(serving.contains("INFO"), "{serving}");
}

#[test]
fn start_goes_on_with_a_warning_where_objects_cannot_be_deleted_or_are_found_late() {
    let data = directory();
    for (method, status, step) in [("DELETE ", "403 Forbidden", "delete"), ("GET ", "404 Not Found", "read")] {
        let endpoint = answering(move |request| if request.starts_with(method) { status } else { "200 OK" });
        let warning = told_of_place(|| {
            let mut command = with_results_in_s3(&endpoint, &data);
            command.env("AWS_DISABLE_BULK_DELETE", "true");
            command
        });
        let is_told = warning.contains("WARN") && warning.contains(&format!("cannot {step} an object"));
        assert!(is_told, "{warning}");
    }
}
