//! Compressed answers.

use std::io::Write;

use crate::helpers::{Options, read_up_to, start};

const TAKES_IT: &str = "accept-encoding: gzip, deflate, br";
const PLAIN_LENGTH: &str = "3400";

#[test]
fn a_marked_answer_is_compressed_for_clients_that_take_gzip_and_caches_learn_what_it_depends_on() {
    let service = start(Options::default());
    let answer = service.get("/page", &[TAKES_IT]);
    let length: usize = answer.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert!((20..200).contains(&length), "{length}");
    assert!(answer.body.starts_with("\u{1f}"), "the first byte of gzip");
    let head = service.request("HEAD", "/page", &[TAKES_IT]);
    assert_eq!(
        (head.header("content-encoding"), head.header("content-length")),
        (Some("gzip"), Some(&*length.to_string()))
    );
    let plain: [&[&str]; 3] = [&[], &["accept-encoding: identity"], &["accept-encoding: gzip;q=0, br"]];
    for fields in plain {
        let answer = service.get("/page", fields);
        assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, Some(PLAIN_LENGTH)));
        assert!(answer.body.starts_with("a line of a page\n"));
        let vary: Vec<_> = answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("vary: ")).collect();
        assert_eq!(vary.len(), 2, "{vary:?}");
        assert!(vary.iter().any(|line| line.ends_with("Accept-Encoding")), "{vary:?}");
    }
}

#[test]
fn answers_without_a_mark_go_out_as_they_are_written() {
    let service = start(Options::default());
    let answer = service.get("/things", &[TAKES_IT]);
    assert_eq!((answer.header("content-encoding"), answer.header("vary"), answer.body.as_str()), (None, None, "[]"));
    let mut stream = service.connect();
    write!(stream, "GET /stream HTTP/1.1\r\nhost: localhost\r\n{TAKES_IT}\r\n\r\n").expect("send");
    // The stream goes on only when it is told to: its first line does not wait for the next one.
    read_up_to(&mut stream, "line 0\n");
}
