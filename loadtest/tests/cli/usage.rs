//! Exit codes 2 and 3, before any load is sent.

use std::net::TcpListener;

use crate::helpers::{Behavior, Bench, Server};

#[test]
fn bad_usage_exits_2_and_names_what_is_wrong() {
    let server = Server::start(Behavior::Correct);
    let url = server.url();
    let cases: [(&[&str], &[&str], &str); 6] = [
        (&[], &[], "--url"),
        (&["ftp://host"], &[], "http://"),
        (&[&url], &["--seed", "-1"], "give a whole number from 0 to 18446744073709551615"),
        (&[&url], &["--baseline", "missing.json"], "missing.json"),
        (&[&url], &["--baseline", "scenario.toml"], "no report of loadtest"),
        (&[&url], &["--output", "xml"], "--output"),
    ];
    for (urls, arguments, named) in cases {
        let ended = Bench::steady(10, 0.2, &[]).with(arguments).run(urls);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(named), "{named}: {}", ended.stderr);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_url_with_a_password_exits_2_and_the_password_is_not_repeated() {
    for url in ["http://me:hush@127.0.0.1:9", "http://hush@127.0.0.1:9", "http://127.0.0.1:9/?hush"] {
        let ended = Bench::steady(10, 0.2, &[]).run(&[url]);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("--url <URL>") && ended.stderr.contains("must not have"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
    }
}

#[test]
fn a_bad_scenario_exits_2_and_names_the_field() {
    for (edit, named) in
        [("rate_qps = 0", "steady.rate_qps"), ("rate_qps = 1\nspeed = 2", "speed"), ("r_max = -1", "r_max")]
    {
        let ended = Bench::steady(10, 0.2, &[edit]).run(&["http://127.0.0.1:9"]);
        assert_eq!(ended.code, 2, "{edit}: {}", ended.stderr);
        assert!(ended.stderr.contains(named), "{named}: {}", ended.stderr);
    }
}

#[test]
fn an_unreachable_target_exits_3() {
    let reachable = Server::start(Behavior::Correct);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let ended = Bench::steady(10, 0.2, &[]).run(&[&reachable.url(), &format!("http://{free}")]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains(&free.to_string()), "{}", ended.stderr);
    assert!(reachable.requests().is_empty());
}
