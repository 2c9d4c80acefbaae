//! Methods, parameters, bodies, malformed requests.

use std::io::Write;
use std::net::Shutdown;

use crate::helpers::{Options, read_to_end, read_up_to, start};

#[test]
fn head_is_answered_as_get_is_without_the_body() {
    let service = start(Options::default());
    for target in ["/things", "/livez", "/readyz", "/metrics", "/foreign", "/nowhere", "/things?nope=1"] {
        let (get, head) = (service.get(target, &[]), service.request("HEAD", target, &[]));
        assert_eq!(head.status, get.status, "{target}");
        assert_eq!(head.body, "", "{target}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{target}");
        if target != "/metrics" {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{target}");
        }
    }
}

#[test]
fn head_of_an_endless_answer_ends() {
    let service = start(Options::default());
    let answer = service.request("HEAD", "/stream", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
}

#[test]
fn a_connection_goes_on_after_head() {
    let service = start(Options::default());
    let mut stream = service.connect();
    write!(stream, "HEAD /things HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    read_up_to(&mut stream, "\r\n\r\n");
    write!(stream, "GET /whoami HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("send");
    assert_eq!(read_to_end(&mut stream).body, "nobody");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let service = start(Options::default());
    for (method, target, allow) in [
        ("PUT", "/things", "GET, HEAD, POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/readyz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("POST", "/foreign", "GET, HEAD"),
        ("OPTIONS", "/foreign", "GET, HEAD"),
        ("PUT", "/thing%73", "GET, HEAD, POST"),
        ("POST", "/%66oreign", "GET, HEAD"),
        ("HEAD", "/upload", "POST"),
    ] {
        let answer = service.request(method, target, &[]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
        if method != "HEAD" {
            assert_eq!(answer.detail(), format!("this path takes {allow} only"));
        }
    }
    // Also where the body is of a type that other routes do not take.
    let plain = service.request("PUT", "/things", &["content-type: text/plain", "content-length: 1"]);
    assert_eq!((plain.status, plain.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(service.request("POST", "/nowhere", &[]).status, 404);
}

#[test]
fn an_unknown_parameter_is_named_on_every_route() {
    let service = start(Options::default());
    assert_eq!(service.get("/things?limit=1&tag=x&tag=y", &[]).status, 200);
    let answer = service.get("/things?limit=1&lmit=2", &[]);
    assert_eq!((answer.status, answer.detail()), (400, "lmit is no parameter here: this path takes limit, tag".into()));
    assert!(answer.body.contains(r#""field":"lmit""#), "{answer:?}");
    let answer = service.get("/whoami?a=1", &[]);
    assert_eq!((answer.status, answer.detail()), (400, "a is no parameter here: this path takes no parameters".into()));
    let json = "content-type: application/json";
    assert_eq!(service.post("/things?x", &[json], r#"{"name": "n"}"#).status, 400);
    assert_eq!(service.get("/thing%73?lmit=2", &[]).status, 400);
    assert_eq!(service.get("/livez?probe=1", &[]).status, 200);
}

#[test]
fn a_json_body_is_an_object_and_may_begin_with_a_byte_order_mark() {
    let service = start(Options::default());
    let json = "content-type: application/json; charset=utf-8";
    let answer = service.post("/things", &[json], "\u{FEFF}{\"name\": \"n\"}");
    assert_eq!((answer.status, answer.body.as_str()), (201, "n"));
    let answer = service.post("/things", &[json], r#"["n"]"#);
    assert_eq!(
        (answer.status, answer.detail()),
        (400, "the body is not valid: it must be an object, but is an array (line 1, column 0)".into())
    );
}

#[test]
fn what_is_no_http_gets_a_problem() {
    let service = start(Options::default());
    let answer = service.ask("GET / HTTP/1.1\r\nhost localhost\r\n\r\n");
    assert_eq!((answer.status, answer.detail()), (400, "the request is not valid HTTP/1.1".into()));
    let whole = service.get(&format!("/{}", "a".repeat(65_000)), &[]);
    assert_eq!(whole.status, 404, "it is read");
    for length in [65_535, 140_000] {
        let answer = service.ask(&format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(length)));
        let told = "the target of the request is longer than 65534 bytes";
        assert_eq!((answer.status, answer.detail()), (414, told.into()), "{length}");
    }
    // After another request on the same connection, too.
    let first = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut stream = service.connect();
    stream.write_all(first.as_bytes()).expect("send");
    read_up_to(&mut stream, "\r\n\r\n");
    stream.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).as_bytes()).expect("send");
    assert_eq!(read_to_end(&mut stream).status, 414);
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(140_000));
    let answer = service.ask(&long);
    assert_eq!((answer.status, answer.detail()), (431, "the head of the request is too long".into()));
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_without_chunks() {
    let service = start(Options::default());
    for keep in ["", "connection: keep-alive\r\n"] {
        let mut stream = service.connect();
        write!(stream, "GET /stream HTTP/1.0\r\n{keep}\r\n").expect("send");
        let answer = read_up_to(&mut stream, "line 0\n");
        assert!(answer.ends_with("\r\n\r\nline 0\n"), "{answer}");
        assert!(!answer.contains("transfer-encoding") && !answer.contains("keep-alive"), "{answer}");
    }
    let short = service.ask("GET /things HTTP/1.0\r\n\r\n");
    assert_eq!((short.body.as_str(), short.header("content-length")), ("[]", Some("2")));
}

#[test]
fn a_client_that_offers_another_protocol_is_told_that_the_connection_ends() {
    let service = start(Options::default());
    let offer = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n";
    let answer = service.ask(&format!("GET /things HTTP/1.1\r\nhost: localhost\r\n{offer}\r\n"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_head_that_does_not_come_gets_a_problem() {
    let limits = service::Limits { head_timeout: std::time::Duration::from_millis(200), ..service::Limits::default() };
    let service = start(Options { limits, ..Options::default() });
    let answer = service.ask("GET / HTTP/1.1\r\n");
    assert_eq!((answer.status, answer.detail()), (408, "the head of the request did not arrive in time".into()));
}

#[test]
fn an_encoded_body_is_refused_with_the_encoding_that_is_taken() {
    let service = start(Options::default());
    let post = |target: &str, encoding: &str| {
        service.post(target, &["content-type: application/json", encoding], r#"{"name": "n"}"#)
    };
    for target in ["/things", "/programs", "/upload"] {
        for encoding in ["gzip", "GZIP", "br", "identity, deflate", "nonsense"] {
            let answer = post(target, &format!("content-encoding: {encoding}"));
            assert_eq!(
                (answer.status, answer.header("accept-encoding")),
                (415, Some("identity")),
                "{target} {encoding}"
            );
            let expected = format!(
                "the body must be sent as it is, without 'Content-Encoding: {encoding}': no encoding is taken but \
                 identity"
            );
            assert_eq!(answer.detail(), expected);
        }
        assert!(matches!(post(target, "content-encoding: Identity").status, 200 | 201), "{target}");
    }
    assert_eq!(service.get("/things", &["content-encoding: gzip"]).status, 200, "there is no body");
}

#[test]
fn a_body_that_is_cut_off_is_called_so() {
    let service = start(Options::default());
    for target in ["/things", "/upload"] {
        let mut stream = service.connect();
        let head = "host: localhost\r\ncontent-type: application/json\r\ncontent-length: 100";
        write!(stream, "POST {target} HTTP/1.1\r\n{head}\r\n\r\n{{\"name\":").expect("send");
        stream.shutdown(Shutdown::Write).expect("open");
        let answer = read_to_end(&mut stream);
        let detail = "the body is not valid: it is cut off: the connection ended before all of it came, or a chunk of it \
                      is malformed";
        assert_eq!((answer.status, answer.detail()), (400, detail.to_owned()), "{target}");
    }
}

#[test]
fn what_is_not_utf8_in_a_target_is_refused_and_not_replaced() {
    let service = start(Options::default());
    for (target, detail) in [
        ("/things?tag=%ff", "tag must be UTF-8 when it is decoded, but is not: tag=%ff"),
        ("/things?limit=1&%C3=x", "query must be UTF-8 when it is decoded, but is not: %C3=x"),
        ("/things/%ff", "path must be UTF-8 when it is decoded, but is not: /things/%ff"),
    ] {
        let answer = service.get(target, &[]);
        assert_eq!((answer.status, answer.detail()), (400, detail.to_owned()));
    }
    assert_eq!(service.get("/things?tag=%C3%A9", &[]).status, 200);
    assert_eq!(service.get("/things/%C3%A9", &[]).status, 404);
}
