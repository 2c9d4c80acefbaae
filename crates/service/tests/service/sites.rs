//! Requests that a browser must not make for a page of another site.

use std::net::Ipv4Addr;

use service::DoorSettings;

use crate::helpers::{Options, start};

const JSON: &str = "content-type: application/json";
const BODY: &str = r#"{"name": "n"}"#;

#[test]
fn a_page_of_another_site_changes_nothing() {
    let service = start(Options::default());
    let post = |fields: &[&str]| service.post("/things", &[&[JSON], fields].concat(), BODY).status;
    assert_eq!(post(&[]), 201);
    assert_eq!(post(&["sec-fetch-site: same-origin"]), 201);
    assert_eq!(post(&["sec-fetch-site: none"]), 201);
    assert_eq!(post(&["sec-fetch-site: same-origin", "origin: http://elsewhere"]), 201);
    assert_eq!(post(&["origin: http://localhost"]), 201);
    for fields in [
        &["sec-fetch-site: cross-site"][..],
        &["sec-fetch-site: same-site"],
        &["sec-fetch-site: cross-site", "origin: http://localhost"],
        &["origin: http://evil.example"],
        &["origin: http://localhost:1"],
        &["origin: null"],
        &["origin: localhost"],
    ] {
        assert_eq!(post(fields), 403, "{fields:?}");
    }
    let answer = service.request("DELETE", "/things", &["sec-fetch-site: cross-site"]);
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.detail(),
        "a page of another site must not do this: Sec-Fetch-Site is neither same-origin nor none"
    );
    assert_eq!(service.get("/things", &["sec-fetch-site: cross-site"]).status, 200);
    // A page may open a WebSocket to any site, by `GET`.
    let offer = |protocol: &str, site: &str| service.get("/things", &[&format!("upgrade: {protocol}"), site]).status;
    assert_eq!(offer("websocket", "sec-fetch-site: cross-site"), 403);
    assert_eq!(offer("h2c", "origin: http://evil.example"), 403);
    assert_eq!(offer("h2c", "origin: http://localhost"), 200);
}

#[test]
fn a_body_of_json_says_that_it_is() {
    let service = start(Options::default());
    for fields in [&[][..], &["content-type: text/plain"], &["content-type: application/x-www-form-urlencoded"]] {
        let answer = service.post("/things", fields, BODY);
        assert_eq!(answer.status, 415, "{fields:?}");
        assert_eq!(answer.detail(), "the body must be JSON, sent with 'Content-Type: application/json'");
    }
    assert_eq!(service.post("/things", &["content-type: Application/JSON;charset=utf-8"], BODY).status, 201);
    // A route may take other bodies.
    assert_eq!(service.post("/programs", &["content-type: application/wasm"], "x").status, 200);
}

#[test]
fn a_loopback_listener_answers_for_loopback_names_only() {
    let service = start(Options::default());
    let ask = |target: &str, host: &str| {
        service.ask(&format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{host}\r\n")).status
    };
    for host in ["localhost", "LocalHost:8080", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8080"] {
        assert_eq!(ask("/things", &format!("host: {host}\r\n")), 200, "{host}");
    }
    for host in ["rebound.example", "rebound.example:8080", "localhost.rebound.example", "10.0.0.1", "*", ""] {
        assert_eq!(ask("/things", &format!("host: {host}\r\n")), 421, "{host}");
        assert_eq!(ask("/livez", &format!("host: {host}\r\n")), 421, "{host}");
    }
    assert_eq!(ask("http://rebound.example/things", "host: localhost\r\n"), 421);
    assert_eq!(ask("/things", ""), 400);
    assert_eq!(ask("/things", "host: localhost\r\nhost: rebound.example\r\n"), 400);
    assert_eq!(service.ask("GET /things HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn other_listeners_answer_for_any_name_unless_some_are_listed() {
    let address = (Ipv4Addr::UNSPECIFIED, 0).into();
    let service = start(Options { address, ..Options::default() });
    let ask = |service: &crate::helpers::Service, host: &str| {
        service.ask(&format!("GET /things HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
    };
    assert_eq!(ask(&service, "divvy.example").status, 200);

    let settings = DoorSettings {
        allowed_hosts: "divvy.example, coordinator".to_owned().try_into().expect("names"),
        ..DoorSettings::default()
    };
    let service = start(Options { address, doors: settings.internal().expect("doors"), ..Options::default() });
    for host in ["divvy.example", "coordinator:8080", "10.1.2.3:8080", "[fd00::1]:8080"] {
        assert_eq!(ask(&service, host).status, 200, "{host}");
    }
    let refused = ask(&service, "rebound.example");
    assert_eq!(refused.status, 421);
    assert!(refused.detail().contains("DIVVY_ALLOWED_HOSTS"), "{refused:?}");
}
