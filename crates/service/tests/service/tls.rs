//! TLS of listeners and clients.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use api::client::{ClientTls, http_client_with};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reqwest::{Client, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use service::DoorSettings;
use tempfile::TempDir;

use crate::helpers::{Options, Service, read_to_end, read_up_to, start, wait_until};

/// A certificate authority whose certificates are in files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost`, of servers and clients, and its key.
    fn issue(&self) -> (String, String) {
        self.issue_for(&["localhost", "127.0.0.1"])
    }

    fn issue_for(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }
}

fn write(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("written");
    path
}

/// A service whose certificate is `authority`'s, in `cert.pem` and `key.pem`.
fn serve(directory: &TempDir, authority: &Authority, client_ca: Option<PathBuf>) -> Service {
    let (cert, key) = authority.issue();
    let settings = DoorSettings {
        tls_cert: Some(write(directory, "cert.pem", &cert)),
        tls_key: Some(write(directory, "key.pem", &key)),
        tls_client_ca: client_ca,
        ..DoorSettings::default()
    };
    start(Options { doors: settings.internal().expect("doors"), ..Options::default() })
}

fn client(ca_file: &Path, identity: Option<(PathBuf, PathBuf)>) -> Client {
    let tls = ClientTls { ca_file: Some(ca_file.to_owned()), identity, server_name: None };
    http_client_with(Duration::from_secs(5), &tls, true).expect("a client")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn get(client: &Client, service: &Service, path: &str) -> reqwest::Result<Response> {
    client.get(format!("https://localhost:{}{path}", service.address.port())).send().await
}

/// An error with its causes.
fn whole(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error: &&dyn Error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn https_is_answered_and_a_stranger_s_certificate_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let ca = write(&directory, "ca.pem", &authority.pem);
    let other_ca = write(&directory, "other.pem", &other.pem);
    let service = serve(&directory, &authority, None);
    block_on(async {
        let trusting = client(&ca, None);
        for path in ["/things", "/livez"] {
            assert_eq!(get(&trusting, &service, path).await.expect(path).status(), 200);
        }
        let url = format!("https://127.0.0.1:{}/things", service.address.port());
        let posted = trusting.post(url).json(&serde_json::json!({"name": "n"})).send().await.expect("sent");
        assert_eq!(posted.text().await.expect("text"), "n");
        let error = get(&client(&other_ca, None), &service, "/things").await.expect_err("not trusted");
        assert!(whole(&error).contains("invalid peer certificate"), "{}", whole(&error));
        let plain = trusting.get(format!("http://{}/things", service.address)).send().await;
        assert!(plain.is_err(), "{plain:?}");
    });
}

#[test]
fn a_client_without_files_says_which_one_is_missing() {
    let tls = ClientTls { ca_file: Some("/nowhere/ca.pem".into()), ..ClientTls::default() };
    let error = http_client_with(Duration::from_secs(1), &tls, true).expect_err("no file");
    assert!(whole(&error).starts_with("read /nowhere/ca.pem as PEM: "), "{}", whole(&error));
    let directory = tempfile::tempdir().expect("a directory");
    let empty = write(&directory, "empty.pem", "");
    let settings =
        DoorSettings { tls_cert: Some(empty.clone()), tls_key: Some(empty.clone()), ..DoorSettings::default() };
    let error = format!("{:#}", settings.public().expect_err("no certificate"));
    assert!(
        error.starts_with("DIVVY_TLS_CERT cannot be used: ") && error.ends_with("empty.pem has no certificate"),
        "{error}"
    );
    let cert = write(&directory, "cert.pem", &Authority::new("ours").issue().0);
    let no_key =
        DoorSettings { tls_cert: Some(cert.clone()), tls_key: Some("/nowhere".into()), ..DoorSettings::default() };
    let error = format!("{:#}", no_key.public().expect_err("no key"));
    assert!(error.starts_with("DIVVY_TLS_KEY cannot be used: read /nowhere as PEM: "), "{error}");
    let no_ca = DoorSettings { tls_client_ca: Some("/nowhere".into()), tls_key: Some(cert), ..settings };
    let error = format!("{:#}", no_ca.internal().expect_err("no authority"));
    assert!(error.starts_with("DIVVY_TLS_CLIENT_CA cannot be used: read /nowhere as PEM: "), "{error}");
    let half = DoorSettings { tls_cert: Some(empty), ..DoorSettings::default() };
    let error = half.public().expect_err("no key").to_string();
    assert_eq!(error, "set both DIVVY_TLS_CERT and DIVVY_TLS_KEY, or neither");
}

#[test]
fn mutual_tls_lets_in_who_has_a_certificate_and_probes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let ca = write(&directory, "ca.pem", &authority.pem);
    let service = serve(&directory, &authority, Some(ca.clone()));
    let identity = |authority: &Authority, name: &str| {
        let (cert, key) = authority.issue();
        (write(&directory, &format!("{name}.crt"), &cert), write(&directory, &format!("{name}.key"), &key))
    };
    let known = client(&ca, Some(identity(&authority, "known")));
    let stranger = client(&ca, Some(identity(&other, "stranger")));
    let nobody = client(&ca, None);
    block_on(async {
        assert_eq!(get(&known, &service, "/things").await.expect("sent").status(), 200);
        assert_eq!(get(&nobody, &service, "/livez").await.expect("sent").status(), 200);
        let refused = get(&nobody, &service, "/things").await.expect("sent");
        assert_eq!(refused.status(), 403);
        assert!(refused.text().await.expect("text").contains("this needs a client certificate"));
        for path in ["/things", "/livez"] {
            let error = get(&stranger, &service, path).await.expect_err("refused");
            assert!(whole(&error).contains("UnknownCA"), "{}", whole(&error));
        }
    });
}

#[test]
fn a_new_certificate_is_taken_while_requests_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = write(&directory, "both.pem", &(old.pem.clone() + &new.pem));
    let new_ca = write(&directory, "new.pem", &new.pem);
    let service = serve(&directory, &old, None);
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for keeps_its_connection in [true, true, false, false] {
            let (service, both, is_over, answered) = (&service, &both, &is_over, &answered);
            scope.spawn(move || {
                block_on(async {
                    let mut asking = client(both, None);
                    while !is_over.load(SeqCst) {
                        if !keeps_its_connection {
                            asking = client(both, None);
                        }
                        let response = get(&asking, service, "/things").await;
                        let response = response.unwrap_or_else(|error| panic!("{}", whole(&error)));
                        assert_eq!(response.text().await.expect("text"), "[]");
                        answered.fetch_add(1, SeqCst);
                    }
                });
            });
        }
        wait_until("answered", || answered.load(SeqCst) > 20);
        let (cert, key) = new.issue();
        write(&directory, "cert.pem", &cert);
        // The wait is longer than the interval of two checks: a certificate without its key is not taken.
        thread::sleep(Duration::from_millis(1500));
        write(&directory, "key.pem", &key);
        let takes_new = || block_on(async { get(&client(&new_ca, None), &service, "/livez").await.is_ok() });
        wait_until("taken", takes_new);
        let before = answered.load(SeqCst);
        wait_until("answered", || answered.load(SeqCst) > before + 20);
        is_over.store(true, SeqCst);
    });
}

#[test]
fn a_client_that_leaves_through_tls_ends_its_handler_and_its_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("ours");
    let ca = write(&directory, "ca.pem", &authority.pem);
    let service = serve(&directory, &authority, None);
    block_on(async {
        let asking = client(&ca, None);
        let request = get(&asking, &service, "/slow");
        let begun = async {
            while service.shared.begun.load(SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = request => panic!("{answer:?}"),
            () = begun => (),
        }
    });
    wait_until("dropped", || service.shared.dropped.load(SeqCst) == 1);
    wait_until("closed", || service.shared.closed.load(SeqCst) == 1);
}

/// A client that sees each byte of its connection.
fn connect(service: &Service, authority: &Authority) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), service.connect())
}

/// Sends `close_notify` and leaves the socket open.
fn half_close(client: &mut StreamOwned<ClientConnection, TcpStream>) {
    client.conn.send_close_notify();
    client.flush().expect("said");
}

#[test]
fn an_answer_that_came_through_tls_is_not_lost_however_its_client_ends() {
    const ROUNDS: u64 = 5;
    const REQUEST: &[u8] = b"GET /minded HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("ours");
    let service = serve(&directory, &authority, None);
    let shared = &service.shared;
    for round in 0..ROUNDS {
        for says_goodbye in [false, true] {
            let mut client = connect(&service, &authority);
            client.write_all(REQUEST).expect("sent");
            wait_until("begun", || shared.begun.load(SeqCst) > shared.closed.load(SeqCst));
            shared.go_on.notify_one();
            read_up_to(&mut client, "done");
            if says_goodbye {
                half_close(&mut client);
            }
            drop(client);
            let ended = 2 * round + u64::from(says_goodbye) + 1;
            wait_until("closed", || shared.closed.load(SeqCst) == ended);
        }
    }
    let mut leaving = connect(&service, &authority);
    leaving.write_all(REQUEST).expect("sent");
    wait_until("begun", || shared.begun.load(SeqCst) > shared.closed.load(SeqCst));
    drop(leaving);
    wait_until("lost", || shared.lost.load(SeqCst) > 0);
    assert_eq!(shared.lost.load(SeqCst), 1);
}

#[test]
fn a_client_that_says_through_tls_that_it_sends_no_more_gets_its_answer_and_leaves_when_its_socket_ends() {
    const REQUEST: &[u8] = b"GET /minded HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("ours");
    let service = serve(&directory, &authority, None);
    let shared = &service.shared;
    // The client closes its half with its request, and in the middle of its wait.
    for (number, says_it_at_once) in [(1, true), (2, false)] {
        let mut client = connect(&service, &authority);
        client.write_all(REQUEST).expect("sent");
        if says_it_at_once {
            half_close(&mut client);
        }
        wait_until("begun", || shared.begun.load(SeqCst) == number);
        if !says_it_at_once {
            half_close(&mut client);
        }
        // The service shows nothing when it reads the half-close: by now it has.
        thread::sleep(Duration::from_millis(100));
        shared.go_on.notify_one();
        let answer = read_to_end(&mut client);
        assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
        wait_until("closed", || shared.closed.load(SeqCst) == number);
    }
    assert_eq!((shared.dropped.load(SeqCst), shared.lost.load(SeqCst)), (0, 0));

    let mut leaving = connect(&service, &authority);
    leaving.write_all(REQUEST).expect("sent");
    half_close(&mut leaving);
    wait_until("begun", || shared.begun.load(SeqCst) == 3);
    drop(leaving);
    wait_until("dropped", || shared.dropped.load(SeqCst) == 1);
    wait_until("lost", || shared.lost.load(SeqCst) == 1);
}

#[test]
fn a_server_may_be_known_by_one_name_at_any_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("ours");
    let ca = write(&directory, "ca.pem", &authority.pem);
    let (cert, key) = authority.issue_for(&["divvy-worker"]);
    let settings = DoorSettings {
        tls_cert: Some(write(&directory, "cert.pem", &cert)),
        tls_key: Some(write(&directory, "key.pem", &key)),
        ..DoorSettings::default()
    };
    let service = start(Options { doors: settings.internal().expect("doors"), ..Options::default() });
    let asking = |server_name: Option<&str>| {
        let server_name = server_name.map(str::to_owned);
        let tls = ClientTls { ca_file: Some(ca.clone()), identity: None, server_name };
        http_client_with(Duration::from_secs(5), &tls, false).expect("a client")
    };
    let url = format!("https://{}/things", service.address);
    block_on(async {
        assert_eq!(asking(Some("divvy-worker")).get(&url).send().await.expect("sent").status(), 200);
        for other in [None, Some("divvy-coordinator")] {
            let error = asking(other).get(&url).send().await.expect_err("another name");
            assert!(whole(&error).contains("not valid for"), "{}", whole(&error));
        }
    });
    let unnamed = ClientTls { server_name: Some("no name!".to_owned()), ..ClientTls::default() };
    let error = http_client_with(Duration::from_secs(5), &unnamed, false).expect_err("no name");
    assert_eq!(error.to_string(), "\"no name!\" is no name of a server");
}

#[test]
fn a_client_shows_the_certificate_that_its_files_have_now() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let ca = write(&directory, "ca.pem", &authority.pem);
    let service = serve(&directory, &authority, Some(ca.clone()));
    let issue = |authority: &Authority| {
        let (cert, key) = authority.issue();
        (write(&directory, "client.crt", &cert), write(&directory, "client.key", &key))
    };
    let asking = client(&ca, Some(issue(&other)));
    block_on(async {
        assert!(get(&asking, &service, "/things").await.is_err());
        issue(&authority);
        assert_eq!(get(&asking, &service, "/things").await.expect("sent").status(), 200);
    });
}
