//! A server whose behavior a test chooses, and the binary run against it.

use std::collections::HashMap;
use std::fs;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::rt::{self, time::sleep};
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

/// The behavior of a [`Server`].
#[derive(Clone, Copy)]
pub(crate) enum Behavior {
    Correct,
    Wrong,
    OtherRange,
    Status(u16),
    Body(&'static str),
    Endless,
    Never,
    Slow(Duration),
    /// Right answers, but the tenth request and those after it wait until this many have come.
    Hold(usize),
    /// Right answers, but status 500 for the requests of this range of numbers, from 0 on in the order of arrival.
    Fail(usize, usize),
}

/// A service on a loopback port of its own, until dropped.
pub(crate) struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    state: Arc<State>,
}

struct State {
    behavior: Behavior,
    seen: Mutex<Seen>,
    /// Number of requests so far.
    arrived: watch::Sender<usize>,
}

#[derive(Default)]
struct Seen {
    /// The range that each request asks for.
    requests: Vec<(u64, u64)>,
    algorithms: Vec<Option<String>>,
}

impl Server {
    pub(crate) fn start(behavior: Behavior) -> Self {
        let state = Arc::new(State { behavior, seen: Mutex::default(), arrived: watch::Sender::new(0) });
        let (started, start) = mpsc::channel();
        let shared = web::Data::from(Arc::clone(&state));
        thread::spawn(move || {
            rt::System::new().block_on(async move {
                let app = move || App::new().app_data(shared.clone()).route("/sum-of-primes", web::get().to(answer));
                let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").expect("bind");
                let address = server.addrs()[0];
                let server = server.run();
                started.send((address, server.handle())).expect("the test waits");
                server.await.expect("serve");
            });
        });
        let (address, handle) = start.recv().expect("the server starts");
        Self { address, handle, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The range that each request so far has asked for.
    pub(crate) fn requests(&self) -> Vec<(u64, u64)> {
        self.state.seen.lock().expect("no panic").requests.clone()
    }

    /// The algorithm that every request so far has asked for.
    pub(crate) fn algorithms(&self) -> Vec<Option<String>> {
        self.state.seen.lock().expect("no panic").algorithms.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

async fn answer(state: web::Data<State>, query: web::Query<HashMap<String, String>>) -> HttpResponse {
    let [a, b] = ["a", "b"].map(|name| query[name].parse::<u64>().expect("a number"));
    let number = {
        let mut seen = state.seen.lock().expect("no panic");
        seen.algorithms.push(query.get("algorithm").cloned());
        seen.requests.push((a, b));
        seen.requests.len() - 1
    };
    state.arrived.send_modify(|arrived| *arrived += 1);
    let sum = sum_of_primes(a, b);
    match state.behavior {
        Behavior::Never => pending().await,
        Behavior::Wrong => right_answer(a, b, sum + 1),
        Behavior::OtherRange => right_answer(a, b + 1, sum),
        Behavior::Status(status) => HttpResponse::build(status.try_into().expect("a status"))
            .insert_header(("location", "/sum-of-primes?a=0&b=0"))
            .finish(),
        Behavior::Body(body) => HttpResponse::Ok().body(body),
        Behavior::Endless => HttpResponse::Ok().body(vec![b' '; 1 << 20]),
        Behavior::Fail(first, end) if (first..end).contains(&number) => HttpResponse::InternalServerError().finish(),
        Behavior::Slow(delay) => {
            sleep(delay).await;
            right_answer(a, b, sum)
        }
        Behavior::Hold(until) if number >= 9 => {
            let all_came = state.arrived.subscribe().wait_for(|&arrived| arrived >= until).await.is_ok();
            assert!(all_came, "the state holds the sender");
            right_answer(a, b, sum)
        }
        Behavior::Correct | Behavior::Hold(_) | Behavior::Fail(..) => right_answer(a, b, sum),
    }
}

fn right_answer(a: u64, b: u64, sum: u64) -> HttpResponse {
    HttpResponse::Ok().body(format!(r#"{{"a":{a},"b":{b},"sum":"{sum}","tasks":1,"elapsed_ms":0}}"#))
}

fn sum_of_primes(a: u64, b: u64) -> u64 {
    (a.max(2)..=b).filter(|&n| (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)).sum()
}

/// A listener that answers `connections` times with these bytes, closing each, and then refuses.
pub(crate) fn raw_server(connections: usize, reply: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for _ in 0..connections {
            let Ok((mut peer, _)) = listener.accept() else {
                return;
            };
            let _ = peer.read(&mut [0; 4096]);
            let _ = peer.write_all(reply);
        }
    });
    url
}

/// A directory with a scenario in it, and the binary run on them.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    arguments: Vec<String>,
}

impl Bench {
    /// A steady scenario of `rate_qps` for `duration_s`, with limits that hold also on a machine that stands still for a while.
    /// `edits` replace its lines by name.
    pub(crate) fn steady(rate_qps: u32, duration_s: f64, edits: &[&str]) -> Self {
        Self::scenario(&format!("[steady]\nrate_qps = {rate_qps}\nduration_s = {duration_s}"), edits)
    }

    pub(crate) fn scenario(load: &str, edits: &[&str]) -> Self {
        let mut text = format!(
            "name = \"test\"\ntitle = \"A test\"\n{load}\n[request]\nr_max = 99\na_step = 5\nb_offset = 1000\nb_step = 10\n\
             timeout_ms = 60000\noutstanding_max = 200\n[limits]\np99_limit_ms = 60000\nfailed_share_limit = 0\n"
        );
        for edit in edits {
            let key = edit.split(" =").next().expect("key = value");
            let old = text.lines().find(|line| line.starts_with(key)).expect("a line of the scenario").to_owned();
            text = text.replace(&old, edit);
        }
        let directory = TempDir::new().expect("temporary directory");
        fs::write(directory.path().join("scenario.toml"), text).expect("write");
        Self { directory, arguments: Vec::new() }
    }

    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Runs the binary to its end with the report in `report` of the directory.
    pub(crate) fn run(&self, urls: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.current_dir(self.directory.path()).args(["scenario.toml", "--report", "report"]);
        for url in urls {
            command.args(["--url", url]);
        }
        Ended::new(command.args(&self.arguments).output().expect("start the binary"), self.directory.path())
    }
}

/// A finished run.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    report_json: Option<String>,
    report_html: Option<String>,
}

impl Ended {
    fn new(output: Output, directory: &Path) -> Self {
        Self {
            code: output.status.code().expect("not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
            report_json: fs::read_to_string(directory.join("report/report.json")).ok(),
            report_html: fs::read_to_string(directory.join("report/report.html")).ok(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.report_json.as_deref().expect("report.json")).expect("JSON")
    }

    pub(crate) fn html(&self) -> &str {
        self.report_html.as_deref().expect("report.html")
    }

    pub(crate) fn measured(&self, name: &str) -> Value {
        self.json()["measured"][name].clone()
    }

    /// The limits that were missed.
    pub(crate) fn missed_limits(&self) -> Vec<String> {
        let json = self.json();
        let checks = json["checks"].as_array().expect("checks").iter();
        checks.filter(|c| c["kept"] == false).map(|c| c["limit"].as_str().expect("name").to_owned()).collect()
    }
}
