//! Tokens and rights.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use api::client::{Client, Error};
use service::access::add;
use service::{DoorSettings, Rights};

use crate::helpers::{Options, Service, start, wait_until};

fn rights(list: &str) -> Rights {
    list.parse().expect("rights")
}

fn guarded(file: &Path, anonymous_read: bool) -> Service {
    let settings = DoorSettings { api_tokens_file: Some(file.to_owned()), anonymous_read, ..DoorSettings::default() };
    start(Options { doors: settings.public().expect("doors"), ..Options::default() })
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[test]
fn a_route_demands_its_right_and_probes_demand_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = |name, list| bearer(&add(&file, name, &rights(list)).expect("added"));
    let (reader, submitter, both, admin) =
        (token("reader", "read"), token("submitter", "submit"), token("both", "read,submit"), token("boss", "admin"));
    let service = guarded(&file, false);
    let get = |target, token: &String| service.get(target, &[token]).status;
    let post =
        |token: &String| service.post("/things", &[token, "content-type: application/json"], r#"{"name": "n"}"#).status;

    let refused = service.get("/things", &[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(refused.detail(), "this needs the header 'Authorization: Bearer' with a token of this service");
    for wrong in ["Bearer", "Bearer ", "Bearer nothing", "Basic eDp5", &reader["authorization: ".len()..][..30]] {
        assert_eq!(service.get("/things", &[&format!("authorization: {wrong}")]).status, 401, "{wrong}");
    }
    let unknown = service.get("/things", &[&bearer("nothing")]);
    assert_eq!(unknown.header("www-authenticate"), Some("Bearer"));
    assert_eq!(unknown.detail(), "this service does not know the token in the header 'Authorization: Bearer'");
    assert_eq!((get("/things", &reader), post(&reader)), (200, 403));
    assert_eq!((get("/things", &submitter), post(&submitter)), (403, 201));
    assert_eq!((get("/things", &both), post(&both)), (200, 201));
    assert_eq!((get("/things", &admin), post(&admin)), (200, 201));
    assert_eq!(service.request("HEAD", "/things", &[&reader]).status, 200);
    assert_eq!(service.get("/things", &[&reader.replace("Bearer", "bearer")]).status, 200);

    let lacking = service.post("/things", &[&reader], "");
    assert_eq!(lacking.detail(), r#"the token "reader" lacks the right "submit""#);
    assert_eq!(lacking.header("www-authenticate"), Some(r#"Bearer error="insufficient_scope""#));
    assert_eq!(service.request("POST", "/programs", &[&both]).status, 403);
    assert_eq!(service.request("POST", "/programs", &[&admin]).status, 200);

    // A route outside the table is the administrator's.
    assert_eq!((get("/forgotten", &both), get("/forgotten", &admin)), (403, 200));
    // The absence of a resource is not told to everybody.
    assert_eq!((service.get("/nowhere", &[]).status, get("/nowhere", &reader)), (401, 404));
    assert_eq!((service.get("/livez", &[]).status, service.get("/readyz", &[]).status), (200, 200));
    assert_eq!(service.get("/whoami", &[&reader]).body, "reader");
}

#[test]
fn a_path_that_is_encoded_demands_the_right_of_its_route() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = |name, list| bearer(&add(&file, name, &rights(list)).expect("added"));
    let (reader, submitter, boss) = (token("reader", "read"), token("submitter", "submit"), token("boss", "admin"));
    let (json, body) = ("content-type: application/json", r#"{"name": "n"}"#);
    for anonymous_read in [false, true] {
        let service = guarded(&file, anonymous_read);
        for target in ["/thing%73", "/%74hings", "/%74%68%69%6e%67%73", "/%74%68%69%6E%67%73"] {
            let post = |token: &str| service.post(target, &[json, token], body).status;
            assert_eq!((post("accept: */*"), post(&reader), post(&submitter)), (401, 403, 201), "{target}");
            assert_eq!(service.get(target, &[&reader]).status, 200, "{target}");
            assert_eq!(service.get(target, &[&submitter]).status, 403, "{target}");
        }
        let forgotten = |token: &String| service.get("/forgotte%6e", &[token]).status;
        assert_eq!((forgotten(&reader), forgotten(&boss)), (403, 200));
        assert_eq!(service.request("POST", "/program%73", &[&reader]).status, 403);
        assert_eq!(service.get("/live%7a", &[]).status, 200);
    }
}

#[test]
fn a_client_of_the_grid_sends_its_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = add(&file, "reader", &rights("read")).expect("added");
    let service = guarded(&file, false);
    let url = format!("http://{}", service.address).parse().expect("a URL");
    let ask = |token: Option<&str>| {
        let client = Client::new(&url).expect("a client");
        let client = match token {
            Some(token) => client.with_token(token.parse().expect("a token")),
            None => client,
        };
        assert!(!format!("{client:?}").contains("divvy_"), "{client:?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(client.workers())
    };
    assert!(ask(Some(&token)).expect("answered").is_empty());
    for wrong in [None, Some("divvy_wrong")] {
        let refused = ask(wrong);
        assert!(matches!(&refused, Err(Error::Refused { status, .. }) if status.as_u16() == 401), "{refused:?}");
    }
}

#[test]
fn reading_may_be_left_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    let token = bearer(&add(&file, "ci", &rights("submit")).expect("added"));
    let service = guarded(&file, true);
    assert_eq!(service.get("/whoami", &[]).body, "nobody");
    assert_eq!(service.get("/whoami", &["authorization: Bearer wrong"]).status, 401);
    assert_eq!(service.get("/whoami", &[&token]).status, 403);
    assert_eq!(service.request("POST", "/slow", &[]).status, 401);
    assert_eq!(service.get("/forgotten", &[]).status, 401);
}

#[test]
fn without_a_file_everything_is_open() {
    let service = start(Options::default());
    assert_eq!(service.get("/whoami", &[]).body, "nobody");
    assert_eq!(service.get("/forgotten", &["authorization: Bearer anything"]).status, 200);
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_is_not_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    // Kubernetes mounts a Secret as a link to a link to a directory, which is exchanged.
    let path = |name: &str| directory.path().join(name);
    let (first, second) = (path("..first"), path("..second"));
    fs::create_dir(&first).expect("made");
    fs::create_dir(&second).expect("made");
    let old = bearer(&add(&first.join("tokens.toml"), "old", &rights("read")).expect("added"));
    let new = bearer(&add(&second.join("tokens.toml"), "new", &rights("read")).expect("added"));
    symlink(&first, path("..data")).expect("linked");
    symlink("..data/tokens.toml", path("tokens.toml")).expect("linked");

    let service = guarded(&path("tokens.toml"), false);
    let status = |token: &String| service.get("/things", &[token]).status;
    assert_eq!((status(&old), status(&new)), (200, 401));
    symlink(&second, path("..next")).expect("linked");
    fs::rename(path("..next"), path("..data")).expect("exchanged");
    wait_until("exchanged", || status(&new) == 200);
    assert_eq!(status(&old), 401);

    let file = second.join("tokens.toml");
    let whole = fs::read_to_string(&file).expect("text");
    fs::write(&file, whole + "\n[[token]]\nname = \"half").expect("written");
    // The file is checked each second. A check is not visible from outside, so the test waits for two.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!((status(&new), status(&old)), (200, 401));
    fs::remove_file(&file).expect("removed");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(status(&new), 200);
    fs::write(&file, "").expect("written");
    wait_until("read", || status(&new) == 401);
    let added = bearer(&add(&file, "added", &rights("read")).expect("added"));
    wait_until("read", || status(&added) == 200);
}

#[test]
fn a_file_that_is_broken_at_the_start_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tokens.toml");
    fs::write(&file, "[[token]]\nname = \"x\"\n").expect("written");
    let settings = DoorSettings { api_tokens_file: Some(file), ..DoorSettings::default() };
    let error = format!("{:#}", settings.public().expect_err("broken"));
    assert!(error.contains("DIVVY_API_TOKENS_FILE") && error.contains("line 1: sha256 is missing"), "{error}");
}
