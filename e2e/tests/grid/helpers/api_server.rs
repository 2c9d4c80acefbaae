//! A stand-in for the API server of Kubernetes, as a process that answers over TLS, and the files and variables of a pod that
//! may ask it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_postgres::own_ip;

use super::Process;

/// The token that services show the API server.
const OWN_TOKEN: &str = "token-of-the-service-itself";

#[derive(Debug)]
pub(crate) struct ApiServer {
    directory: TempDir,
    ip: Ipv4Addr,
    port: String,
    process: Process,
    state: Value,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let (directory, ip) = (TempDir::new().expect("a directory"), own_ip());
        write_certificate(directory.path(), ip);
        fs::create_dir(directory.path().join("account")).expect("a directory");
        fs::copy(directory.path().join("ca.pem"), directory.path().join("account/ca.crt")).expect("copy");
        fs::write(directory.path().join("account/token"), OWN_TOKEN).expect("write a token");
        let state = json!({ "own": OWN_TOKEN, "tokens": {}, "refuse": null });
        write_state(directory.path(), &state);
        let process = serve(directory.path(), ip, "0");
        let port = process.logged("serving")["port"].to_string();
        Self { directory, ip, port, process, state }
    }

    /// Ends it; its address stays its own.
    pub(crate) fn stop(&mut self) {
        self.process.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.process = serve(self.directory.path(), self.ip, &self.port);
        self.process.logged("serving");
    }

    /// The variables of a service that asks it, as in a pod.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let account = self.directory.path().join("account");
        vec![
            ("KUBERNETES_SERVICE_HOST", self.ip.to_string()),
            ("KUBERNETES_SERVICE_PORT", self.port.clone()),
            ("DIVVY_KUBERNETES_ACCOUNT_DIR", account.to_str().expect("UTF-8").to_owned()),
        ]
    }

    /// Has it know a token of a service account.
    pub(crate) fn accept(&mut self, token: &str, account: &str, audience: &str) {
        let username = format!("system:serviceaccount:{account}");
        self.state["tokens"][token] = json!({ "username": username, "audiences": [audience] });
        write_state(self.directory.path(), &self.state);
    }

    /// Has it know a token no more, as when its pod is gone.
    pub(crate) fn forget(&mut self, token: &str) {
        self.state["tokens"].as_object_mut().expect("an object").remove(token);
        write_state(self.directory.path(), &self.state);
    }

    /// Has it refuse everything with a status, or nothing.
    pub(crate) fn refuse(&mut self, status: Option<u16>) {
        self.state["refuse"] = json!(status);
        write_state(self.directory.path(), &self.state);
    }

    /// The requests so far, in order.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.directory.path().join("requests.jsonl")).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// A file that only this test has.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A token in the form of Kubernetes, of `NAMESPACE:NAME`, that is valid for so many seconds from now on. Its signature is
/// for the API server to look at.
pub(crate) fn account_token(account: &str, audience: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({
        "aud": [audience],
        "exp": now.checked_add_signed(seconds),
        "sub": format!("system:serviceaccount:{account}"),
        "jti": uuid::Uuid::new_v4(),
    });
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(r#"{"alg":"RS256"}"#.to_owned()), encode(claims.to_string()), encode("x".repeat(256)))
}

fn serve(directory: &Path, ip: Ipv4Addr, port: &str) -> Process {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grid/helpers/api_server.py");
    let mut command = Command::new("python3");
    Process::spawn(command.arg(script).arg(directory).arg(format!("{ip}:{port}")))
}

/// Replaces the state as a whole, since the server reads it for each request.
fn write_state(directory: &Path, state: &Value) {
    fs::write(directory.join("state.new"), state.to_string()).expect("write a state");
    fs::rename(directory.join("state.new"), directory.join("state.json")).expect("exchange the state");
}

fn write_certificate(directory: &Path, ip: Ipv4Addr) {
    let mut of_authority = CertificateParams::new([]).expect("parameters");
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority = of_authority.self_signed(&authority_key).expect("signed").pem();
    let issuer = Issuer::new(of_authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([ip.to_string()]).expect("parameters");
    let cert = params.signed_by(&key, &issuer).expect("signed").pem();
    for (name, text) in [("ca.pem", authority), ("cert.pem", cert), ("key.pem", key.serialize_pem())] {
        fs::write(directory.join(name), text).expect("write a file");
    }
}
