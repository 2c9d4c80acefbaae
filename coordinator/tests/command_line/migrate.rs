//! `divvy-coordinator migrate`.

use std::process::Command;

use super::{OBJECT, directory, directory_with_a_store, run};

#[test]
fn migrate_says_what_it_needs() {
    for (arguments, said, code) in [
        (&["migrate"][..], "--from is missing", 2),
        (&["migrate", "--from", "somewhere"], "--to is missing", 2),
        (&["migrate", "--from"], "needs a value", 2),
        (&["migrate", "--form", "x"], "no option of migrate", 2),
        (&["migrate", "--version"], "no option of migrate", 2),
        (&["migrate", "--from", "x", "--to", "x"], "the same store", 2),
        (&["migrate", "--from", "mysql://host/db", "--to", "x"], "mysql:// is neither", 2),
        (&["migrate", "--from", "x", "--to", "y", "--to-results", "z"], "read --to-results: ", 2),
        (
            &["migrate", "--from", "x", "--to", "y", "--to-results", "file:z"],
            "must name a directory as file:///path",
            2,
        ),
        (&["migrate", "--from", "x", "--to", "y", "--from-results", "file:/z"], "read --from-results: ", 2),
        (&["migrate", "--from", "file:x", "--to", "y"], "file:x is not the URL of a directory", 2),
        (&["migrate", "--from", "/nowhere/at/all", "--to", "x"], "divvy.db", 1),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.code() == Some(code) && stderr.contains(said), "{arguments:?}: {stderr}");
        assert_eq!(
            (stderr.lines().count(), stderr.contains("migrate --help")),
            (1, code == 2),
            "{arguments:?}: {stderr}"
        );
    }
    let help = run(&["migrate", "--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--to-results"));
}

#[test]
fn migrate_ends_with_its_exit_code_where_nobody_reads_what_it_says() {
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    for (arguments, code) in [(&["migrate", "--help"][..], 0), (&["migrate"], 2)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_divvy-coordinator"));
        let status = command.args(arguments).stdout(gone()).stderr(gone()).status().expect("run the service");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// A data directory with a large result.
fn directory_with_a_result() -> tempfile::TempDir {
    let from = directory_with_a_store();
    std::fs::create_dir_all(from.path().join("results")).expect("room");
    std::fs::write(from.path().join("results").join(OBJECT), "[1]").expect("room");
    let db = rusqlite::Connection::open(from.path().join("divvy.db")).expect("a database");
    let insert = "INSERT INTO results (job, object, bytes, sha256) VALUES (1, ?1, 3, zeroblob(32))";
    db.execute(insert, [OBJECT]).expect("room");
    db.close().expect("it is whole");
    from
}

#[test]
fn migrate_moves_a_data_directory_with_its_large_results_to_postgres_and_back() {
    let (from, shared, back) = (directory_with_a_result(), directory(), directory());
    let server = test_postgres::Server::shared();
    let url = server.url(&server.create_database());
    let (from, back) = (from.path().display().to_string(), back.path().join("new").display().to_string());
    let results = url::Url::from_directory_path(shared.path()).expect("a path").to_string();
    let refused = run(&["migrate", "--from", &from, "--to", &url]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--to-results"), "{refused:?}");
    let moved = run(&["migrate", "--from", &from, "--to", &url, "--to-results", &results]);
    assert!(moved.status.success(), "{moved:?}");
    assert!(String::from_utf8_lossy(&moved.stdout).contains("results: 1\n"), "{moved:?}");
    assert_eq!(std::fs::read_to_string(shared.path().join(OBJECT)).expect("it is copied"), "[1]");
    let again = run(&["migrate", "--from", &url, "--to", &back, "--from-results", &results]);
    assert!(again.status.success(), "{again:?}");
    assert!(std::path::Path::new(&back).join("results").join(OBJECT).exists());
    let full = run(&["migrate", "--from", &from, "--to", &url, "--to-results", &results]);
    assert!(String::from_utf8_lossy(&full.stderr).contains("not empty"), "{full:?}");
}

#[test]
fn migrate_goes_on_without_a_lost_result_where_it_is_told_to() {
    let (from, to) = (directory_with_a_result(), directory());
    std::fs::remove_file(from.path().join("results").join(OBJECT)).expect("it is there");
    let (from, to) = (from.path().display().to_string(), to.path().join("new").display().to_string());
    let refused = run(&["migrate", "--from", &from, "--to", &to]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && stderr.contains(OBJECT), "{stderr}");
    assert!(stderr.contains("--from-results") && stderr.contains("--without-lost-results"), "{stderr}");
    let moved = run(&["migrate", "--from", &from, "--to", &to, "--without-lost-results"]);
    let stdout = String::from_utf8_lossy(&moved.stdout);
    assert!(moved.status.success() && stdout.contains("\nresults: 1\n"), "{moved:?}");
    assert!(stdout.contains("results above 64 KiB: 0\n"), "{stdout}");
    assert!(stdout.ends_with(&format!("lost result: {OBJECT}\n")), "{stdout}");
}

/// The only program of a store.
const PROGRAM: &str = "abababababababababababababababababababababababababababababababab";

/// The only output of a store, by its place.
const OUTPUT: &str = "00000000000000000000000000000001/00000000000000000000000000000009.3.abababababababab.txt";

/// A data directory that names a program and an output which are not at their places.
fn directory_without_a_program_and_an_output() -> tempfile::TempDir {
    let from = directory_with_a_store();
    let db = rusqlite::Connection::open(from.path().join("divvy.db")).expect("a database");
    let insert = "INSERT INTO programs (sha256, bytes, kind, uploaded_at) VALUES (unhex(?1), 3, 'wasm', 0)";
    db.execute(insert, [PROGRAM]).expect("room");
    let insert = "INSERT INTO jobs (key, id, kind, work, params, options, fingerprint, state, tasks, tasks_done, \
         tasks_failed, value, bytes, submitted_at) \
         VALUES (1, unhex('00000000000000000000000000000001'), 'program', '{}', '{}', '{}', zeroblob(32), 'succeeded', \
         4, 4, 0, '0', 0, 0)";
    db.execute(insert, []).expect("room");
    let attempt = "00000000-0000-0000-0000-000000000009";
    let object = format!(r#"{{"object":{{"attempt":"{attempt}","bytes":3,"sha256":"{PROGRAM}","text":true}}}}"#);
    let insert = "INSERT INTO attempts (job, first, beyond, worker, results) VALUES (1, 2, 4, 'worker', ?1)";
    db.execute(insert, [format!(r#"["{{\"object\":1}}",{object}]"#)]).expect("room");
    db.close().expect("it is whole");
    from
}

#[test]
fn migrate_goes_on_without_a_lost_program_and_a_lost_output_where_it_is_told_to() {
    let (from, to) = (directory_without_a_program_and_an_output(), directory());
    let results = from.path().join("results");
    let (from, to) = (from.path().display().to_string(), to.path().join("new").display().to_string());
    let refused = run(&["migrate", "--from", &from, "--to", &to]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && stderr.contains(&format!("the program {PROGRAM} is not")), "{stderr}");
    assert!(stderr.contains("--from-results") && stderr.contains("--without-lost-results"), "{stderr}");
    let moved = run(&["migrate", "--from", &from, "--to", &to, "--without-lost-results"]);
    let stdout = String::from_utf8_lossy(&moved.stdout);
    assert!(moved.status.success() && stdout.contains("\nprograms: 1\n"), "{moved:?}");
    let (program, output) = (format!("\nlost program: {PROGRAM}\n"), format!("{OUTPUT}\n"));
    assert!(stdout.contains(&program) && stdout.contains("\nlost output: outputs/"), "{stdout}");
    assert!(stdout.ends_with(&output), "{stdout}");

    // With the output in its place only the program is lost.
    let (_, place) = stdout.rsplit_once("lost output: ").expect("it is lost");
    let place = results.join(place.trim_end());
    std::fs::create_dir_all(place.parent().expect("it has one")).expect("room");
    std::fs::write(&place, "abc").expect("room");
    let again = directory();
    let to = again.path().join("new");
    let moved = run(&["migrate", "--from", &from, "--to", &to.display().to_string(), "--without-lost-results"]);
    let stdout = String::from_utf8_lossy(&moved.stdout);
    assert!(moved.status.success() && stdout.contains("\noutputs above 64 KiB: 1\n"), "{moved:?}");
    assert!(stdout.ends_with(&program), "{stdout}");
    let copy = place.strip_prefix(&results).expect("it is below");
    assert_eq!(std::fs::read(to.join("results").join(copy)).expect("it is copied"), b"abc");
}
