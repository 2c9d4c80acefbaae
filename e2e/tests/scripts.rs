//! Parts of the repository's scripts, with other programs in the place of those that they call.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The test command's plan: the line that checks the dependencies, and the last words.
fn check_of_dependencies_and_end() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test.sh");
    let script = fs::read_to_string(path).expect("the script");
    let is_check = |line: &&str| line.starts_with("  lints: ") && line.contains("check-dependencies.sh");
    let check = script.lines().find(is_check).expect("a line of the plan").trim_start_matches("  lints: ");
    let (_, end) = script.split_once("\nif [ -e target/unchecked ]").expect("its last words");
    // The plan escapes the expansions in its lines.
    format!("{} || exit\nif [ -e target/unchecked ]{end}", check.replace(r"\$", "$"))
}

#[test]
fn the_test_command_says_where_known_vulnerabilities_were_not_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["scripts", "target"] {
        fs::create_dir(folder.path().join(part)).expect("room");
    }
    let checker = folder.path().join("scripts/check-dependencies.sh");
    for (exit_code, status, said) in [
        (0, 0, "\nAll checks passed.\n"),
        (1, 1, ""),
        (3, 0, "\nAll other checks passed, but NOT CHECKED: known vulnerabilities of the dependencies.\n"),
    ] {
        fs::write(&checker, format!("#!/bin/sh\nexit {exit_code}\n")).expect("room");
        fs::set_permissions(&checker, Permissions::from_mode(0o755)).expect("it is there");
        let mut bash = Command::new("bash");
        bash.args(["-c", &check_of_dependencies_and_end()]).current_dir(folder.path());
        let output = bash.output().expect("run bash");
        assert_eq!(
            (output.status.code(), &*String::from_utf8_lossy(&output.stdout)),
            (Some(status), said),
            "{output:?}"
        );
    }
}
