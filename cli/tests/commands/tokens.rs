//! Access tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tempfile::tempdir;

use crate::helpers::{assert_fails, divvy, gone};

#[test]
fn new_token_is_printed_alone_and_its_hash_is_added_to_the_file() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("tokens.toml");
    let file = path.to_str().expect("UTF-8");
    let new = |name: &str, rights: &str| {
        divvy(&["token", "new", name, "--rights", rights, "--file", file]).output().expect("run the command")
    };
    let mut tokens = Vec::new();
    for (name, rights) in [("ci", "read,submit"), ("ops.team-1", "admin")] {
        let output = new(name, rights);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
        let token = String::from_utf8(output.stdout).expect("UTF-8");
        let token = token.strip_suffix('\n').expect("a line").to_owned();
        assert!(token.starts_with("divvy_") && token.len() >= 40 && !token.contains(char::is_whitespace), "{token}");
        tokens.push(token);
        if tokens.len() == 1 {
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
            let text = fs::read_to_string(&path).expect("a file");
            fs::write(&path, format!("# a comment of an operator\n{text}")).expect("write a file");
        }
    }
    let text = fs::read_to_string(&path).expect("a file");
    assert!(text.starts_with("# a comment of an operator\n") && !text.contains(&tokens[0]), "{text}");
    let parsed: toml::Table = toml::from_str(&text).expect("TOML");
    let entries = parsed["token"].as_array().expect("entries");
    for (entry, token) in entries.iter().zip(&tokens) {
        let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry["sha256"].as_str(), Some(hash.as_str()));
    }
    assert_eq!(entries[0]["rights"].as_array().map(Vec::len), Some(2));
    assert_ne!(tokens[0], tokens[1]);

    let again = new("ci", "read");
    assert!(assert_fails(&again, 2).contains("ci"));
    assert_eq!(fs::read_to_string(&path).expect("a file"), text, "a refusal changes nothing");
}

#[test]
fn wrong_names_rights_and_files_are_refused() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("tokens.toml");
    fs::write(&path, "[[token").expect("write a file");
    let file = path.to_str().expect("UTF-8");
    for (arguments, code) in [
        (["new", "two words", "--rights", "read", "--file", "x.toml"], 2),
        (["new", "a\"b", "--rights", "read", "--file", "x.toml"], 2),
        (["new", "ci", "--rights", "write", "--file", "x.toml"], 2),
        (["new", "ci", "--rights", "", "--file", "x.toml"], 2),
        (["new", "ci", "--rights", "read", "--file", file], 2),
        (["new", "ci", "--rights", "read", "--file", "/dev/null"], 2),
        (["new", "ci", "--rights", "read", "--file", "/no/such/folder/x"], 1),
    ] {
        let mut command = divvy(&[&["token"], &arguments[..]].concat());
        let output = command.current_dir(folder.path()).output().expect("run the command");
        assert_fails(&output, code);
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn token_that_could_not_be_printed_is_named_with_its_file() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("tokens.toml");
    let file = path.to_str().expect("UTF-8");
    let full: Stdio = fs::File::options().write(true).open("/dev/full").expect("open").into();
    for (name, stdout) in [("full", full), ("gone", gone())] {
        let output = divvy(&["token", "new", name, "--rights", "read", "--file", file]).stdout(stdout).output();
        let told = assert_fails(&output.expect("run the command"), 1);
        let what = format!("nobody has got the token, so remove its entry {name:?} from {file}\n");
        assert!(told.ends_with(&what), "{told}");
    }
}
