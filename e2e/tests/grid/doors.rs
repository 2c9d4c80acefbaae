//! A grid whose doors are closed: mutual TLS between the services, TLS and tokens before clients.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use test_postgres::Server;

use crate::helpers::{Coordinator, Process, Worker, divvy, eventually, published_sum};

/// The name that the certificates of all services have.
pub(crate) const NAME: &str = "grid.test";

/// A load that any machine keeps up with.
const SCENARIO: &str = r#"
name = "tls"
title = "A second of small requests"

[steady]
rate_qps = 20
duration_s = 1

[request]
r_max = 100
a_step = 10
b_offset = 1000
b_step = 100
timeout_ms = 60000
outstanding_max = 256

[limits]
p99_limit_ms = 60000
failed_share_limit = 0
"#;

/// Files of an authority, and of one certificate that it has issued to all services.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut of_authority = CertificateParams::new([]).expect("parameters");
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let authority = of_authority.self_signed(&authority_key).expect("signed").pem();
        let issuer = Issuer::new(of_authority, authority_key);
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &issuer).expect("signed").pem();
        for (name, text) in [("ca.pem", authority), ("cert.pem", cert), ("key.pem", key.serialize_pem())] {
            fs::write(directory.path().join(name), text).expect("write a file");
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }
}

#[test]
fn grid_with_mutual_tls_and_tokens_answers_those_who_have_them() {
    let files = Files::new();
    let (ca, cert, key, tokens) =
        (files.path("ca.pem"), files.path("cert.pem"), files.path("key.pem"), files.path("tokens.toml"));
    let made = run(&["token", "new", "ci", "--rights", "read,submit", "--file", &tokens], &[]);
    let token = text(&made.stdout).trim_end().to_owned();
    let listener = [("DIVVY_TLS_CERT", &*cert), ("DIVVY_TLS_KEY", &*key), ("DIVVY_TLS_CLIENT_CA", &*ca)];
    let client = [("DIVVY_CA_FILE", &*ca), ("DIVVY_CLIENT_CERT", &*cert), ("DIVVY_CLIENT_KEY", &*key)];
    let name = [("DIVVY_TLS_SERVER_NAME", NAME)];
    let own = [("DIVVY_WORKER_TLS_NAME", NAME), ("DIVVY_API_TOKENS_FILE", &*tokens)];
    let coordinator = Coordinator::start(&[&listener[..], &client, &own].concat());
    let internal = format!("https://{}", coordinator.internal);
    let of_worker = [&listener[..], &client, &name, &[("DIVVY_COORDINATOR", &*internal)]].concat();
    let worker = Worker::start(coordinator.internal, &of_worker);
    worker.logged("the coordinator takes heartbeats");
    let stranger = [&listener[..], &name, &[("DIVVY_COORDINATOR", &*internal), ("DIVVY_CA_FILE", &*ca)]].concat();
    let stranger = Worker::start(coordinator.internal, &stranger);
    let error = stranger.logged("the coordinator takes no heartbeat")["error"].to_string();
    assert!(error.contains("403 Forbidden"), "{error}");

    let url = format!("https://{}", coordinator.public);
    let ask = |variables: &[(&str, &str)]| run(&["sum-of-primes", "1", "1000", "--coordinator", &url], variables);
    let answered = ask(&[("DIVVY_CA_FILE", &ca), name[0], ("DIVVY_TOKEN", &token)]);
    assert_eq!((text(&answered.stdout), text(&answered.stderr)), (&*format!("{}\n", published_sum(3)), ""));
    let without_token = ask(&[("DIVVY_CA_FILE", &ca), name[0]]);
    assert_eq!(without_token.status.code(), Some(2), "{without_token:?}");
    let others = Files::new();
    let untrusting = ask(&[("DIVVY_CA_FILE", &others.path("ca.pem")), name[0], ("DIVVY_TOKEN", &token)]);
    assert_eq!(untrusting.status.code(), Some(3), "{untrusting:?}");
}

#[test]
fn files_of_a_client_that_cannot_be_used_are_reported_and_its_certificate_stays_in_use() {
    let (files, own) = (Files::new(), TempDir::new().expect("a directory"));
    let (ca, cert, key) = (files.path("ca.pem"), files.path("cert.pem"), files.path("key.pem"));
    let copy = |name: &str| {
        let path = own.path().join(name);
        fs::copy(files.path(name), &path).expect("copy a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (own_cert, own_key) = (copy("cert.pem"), copy("key.pem"));
    let listener = [("DIVVY_TLS_CERT", &*cert), ("DIVVY_TLS_KEY", &*key), ("DIVVY_TLS_CLIENT_CA", &*ca)];
    let mut coordinator = Coordinator::start_to_stay(&listener);
    let internal = format!("https://{}", coordinator.internal);
    let of_worker = [
        ("DIVVY_COORDINATOR", &*internal),
        ("DIVVY_TLS_SERVER_NAME", NAME),
        ("DIVVY_CA_FILE", &*ca),
        ("DIVVY_CLIENT_CERT", &*own_cert),
        ("DIVVY_CLIENT_KEY", &*own_key),
    ];
    let worker = Worker::start(coordinator.internal, &of_worker);
    let is_taken_by = |count: f64| (worker.metric("divvy_worker_coordinators") == count).then_some(());
    eventually("it is registered", || is_taken_by(1.0));
    fs::write(&own_key, "no key").expect("write a file");
    // The next coordinator is asked over a new connection.
    coordinator.kill();
    eventually("the coordinator is away", || is_taken_by(0.0));
    coordinator.start_again(&listener);
    worker.logged("the files of a client certificate cannot be used: the ones read before stay in use");
    eventually("it is registered again", || is_taken_by(1.0));
}

/// Their addresses are in no certificate, as those of pods are not.
#[test]
fn coordinators_pass_requests_on_to_each_other_over_tls() {
    let files = Files::new();
    let (ca, cert, key) = (files.path("ca.pem"), files.path("cert.pem"), files.path("key.pem"));
    let services = [
        ("DIVVY_TLS_CERT", &*cert),
        ("DIVVY_TLS_KEY", &*key),
        ("DIVVY_TLS_CLIENT_CA", &*ca),
        ("DIVVY_CA_FILE", &*ca),
        ("DIVVY_CLIENT_CERT", &*cert),
        ("DIVVY_CLIENT_KEY", &*key),
        ("DIVVY_TLS_SERVER_NAME", NAME),
    ];
    let server = Server::shared();
    let store = server.url(&server.create_database());
    let results = TempDir::new().expect("a directory");
    let results = format!("file://{}", results.path().display());
    let own = [("DIVVY_STORE_URL", &*store), ("DIVVY_RESULTS_URL", &*results), ("DIVVY_WORKER_TLS_NAME", NAME)];
    let start = |id| Coordinator::start(&[&services[..], &own, &[("DIVVY_COORDINATOR_ID", id)]].concat());
    let coordinators = [start("first"), start("second")];
    let urls = coordinators.each_ref().map(|coordinator| format!("https://{}", coordinator.internal)).join(",");
    let worker = Worker::start(coordinators[0].internal, &[&services[..], &[("DIVVY_COORDINATOR", &*urls)]].concat());
    worker.logged("the coordinator takes heartbeats");
    // One coordinator leads; the other has to ask it.
    for coordinator in &coordinators {
        let url = format!("https://{}", coordinator.public);
        let client = [("DIVVY_CA_FILE", &*ca), ("DIVVY_TLS_SERVER_NAME", NAME)];
        let answered = run(&["sum-of-primes", "1", "1000", "--coordinator", &url], &client);
        assert_eq!((text(&answered.stdout), text(&answered.stderr)), (&*format!("{}\n", published_sum(3)), ""));
    }
}

#[test]
fn grid_of_one_process_serves_its_clients_by_tls() {
    let files = Files::new();
    let (ca, cert, key) = (files.path("ca.pem"), files.path("cert.pem"), files.path("key.pem"));
    let mut serving = divvy(&["up", "--workers", "2", "--port", "0"]);
    serving.envs([("DIVVY_TLS_CERT", &cert), ("DIVVY_TLS_KEY", &key)]).stdout(Stdio::piped());
    let mut up = Process::spawn(&mut serving);
    let mut url = String::new();
    BufReader::new(up.take_stdout()).read_line(&mut url).expect("a line");
    let url = url.trim_end();
    assert!(url.starts_with("https://"), "{url}");
    let client = [("DIVVY_CA_FILE", &*ca), ("DIVVY_TLS_SERVER_NAME", NAME)];
    let answered = run(&["sum-of-primes", "1", "1000", "--coordinator", url], &client);
    assert_eq!((text(&answered.stdout), text(&answered.stderr)), (&*format!("{}\n", published_sum(3)), ""));
    let (scenario, report) = (files.path("scenario.toml"), files.path("report"));
    fs::write(&scenario, SCENARIO).expect("write a scenario");
    let mut load = crate::helpers::command("loadtest");
    load.args([&*scenario, "--url", url, "--report", &report]);
    let trusting = load.envs(client).output().expect("run");
    assert!(trusting.status.success(), "{trusting:?}");
    let untrusting = load.env("DIVVY_CA_FILE", &cert).output().expect("run");
    assert_eq!(untrusting.status.code(), Some(3), "{untrusting:?}");
}

#[test]
fn certificates_of_a_mounted_secret_are_renewed_under_load_and_no_request_fails() {
    let secret = Secret::new();
    let listener = secret.variables(&[
        ("DIVVY_TLS_CERT", "tls.crt"),
        ("DIVVY_TLS_KEY", "tls.key"),
        ("DIVVY_TLS_CLIENT_CA", "ca.crt"),
    ]);
    let client = secret.variables(&[
        ("DIVVY_CA_FILE", "ca.crt"),
        ("DIVVY_CLIENT_CERT", "tls.crt"),
        ("DIVVY_CLIENT_KEY", "tls.key"),
    ]);
    let both: Vec<_> = listener.iter().chain(&client).map(|(name, path)| (*name, path.as_str())).collect();
    let coordinator = Coordinator::start(&[&both[..], &[("DIVVY_WORKER_TLS_NAME", NAME)]].concat());
    let internal = format!("https://{}", coordinator.internal);
    let name = [("DIVVY_TLS_SERVER_NAME", NAME), ("DIVVY_COORDINATOR", &*internal)];
    let worker = Worker::start(coordinator.internal, &[&both[..], &name].concat());
    worker.logged("the coordinator takes heartbeats");
    let url = format!("https://{}", coordinator.public);
    let ask = || {
        let variables = [("DIVVY_CA_FILE", client[0].1.as_str()), name[0]];
        let answered = run(&["sum-of-primes", "1", "1000", "--coordinator", &url], &variables);
        assert_eq!((text(&answered.stdout), text(&answered.stderr)), (&*format!("{}\n", published_sum(3)), ""));
    };
    let shown = || {
        Command::new("openssl").args(["s_client", "-connect", &url["https://".len()..]]).stdin(Stdio::null()).output()
    };
    let serial = || {
        let session = shown().expect("openssl runs").stdout;
        let start = text(&session).find("-----BEGIN CERTIFICATE-----").expect("a certificate is shown");
        text(&session)[start..].lines().take_while(|line| !line.contains("END")).collect::<String>()
    };
    let first = serial();
    secret.renew();
    // Each request has a connection of its own.
    eventually("the new certificate is shown", || {
        ask();
        (serial() != first).then_some(())
    });
    (0..5).for_each(|_| ask());
}

/// A volume of a Secret as kubelet lays it: links to a link to a directory, which is exchanged.
struct Secret {
    directory: TempDir,
    authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Secret {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        let secret = Self { directory: TempDir::new().expect("a directory"), authority, issuer };
        secret.renew();
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), secret.directory.path().join(name)).expect("link a file");
        }
        secret
    }

    /// Writes a new certificate and key beside the old ones and exchanges the directory.
    fn renew(&self) {
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed").pem();
        let version = TempDir::with_prefix_in("..", self.directory.path()).expect("a directory").keep();
        for (name, text) in [("ca.crt", self.authority.clone()), ("tls.crt", cert), ("tls.key", key.serialize_pem())] {
            fs::write(version.join(name), text).expect("write a file");
        }
        let link = self.directory.path().join("..data_tmp");
        symlink(version.file_name().expect("a name"), &link).expect("link a directory");
        fs::rename(link, self.directory.path().join("..data")).expect("exchange the directory");
    }

    fn variables(&self, files: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.path().join(name).to_str().expect("UTF-8").to_owned();
        files.iter().map(|(variable, name)| (*variable, path(name))).collect()
    }
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    divvy(arguments).envs(variables.iter().copied()).output().expect("run the command")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}
