use std::process::Command;

use sandbox::{Blame, Call, Program, ProgramHash, Reason};

use crate::helpers::{
    Outcome, TEST_HOST, call, command, grid, grid_with, hostile_path, hostile_program, native, reason, text,
};

fn lines(outcome: Outcome) -> Vec<(String, String)> {
    let finished = outcome.expect("finished");
    let lines = text(&finished.stdout).lines().map(|line| line.split_once(": ").expect("two parts"));
    lines.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect()
}

fn assert_contained(lines: &[(String, String)]) {
    assert!(lines.len() > 40, "{lines:?}");
    let let_out: Vec<_> = lines.iter().filter(|(_, answer)| answer == "allowed").collect();
    assert!(let_out.is_empty(), "{let_out:?}");
}

#[test]
fn nothing_outside_can_be_reached() {
    let grid = grid();
    let secret = grid.directory.join("secret");
    std::fs::write(&secret, "untouched").expect("written");
    let host = std::process::id().to_string();
    let lines = lines(grid.hostile(&call(&["reach outside", &host, secret.to_str().expect("UTF-8")])));
    assert_contained(&lines);
    assert_eq!(std::fs::read_to_string(secret).expect("still there"), "untouched");
}

#[test]
fn an_older_landlock_contains_as_much() {
    for abi in 1..=6 {
        let grid = grid_with(|config| config.newest_landlock_abi = abi);
        let secret = grid.directory.join("secret");
        std::fs::write(&secret, "untouched").expect("written");
        let host = std::process::id().to_string();
        let lines = lines(grid.hostile(&call(&["reach outside", &host, secret.to_str().expect("UTF-8")])));
        assert_contained(&lines);
        assert_eq!(std::fs::read_to_string(secret).expect("still there"), "untouched", "Landlock {abi}");
    }
}

#[test]
fn what_programs_need_is_inside() {
    let grid = grid();
    let lines = lines(grid.hostile(&call(&["reach inside"])));
    let refused: Vec<_> = lines.iter().filter(|(_, answer)| answer != "allowed").collect();
    assert!(lines.len() > 10 && refused.is_empty(), "{refused:?}");
}

#[test]
fn a_program_gets_three_descriptors_and_a_clean_environment() {
    let grid = grid();
    assert_eq!(text(&grid.hostile(&call(&["descriptors"])).expect("finished").stdout), "0\n1\n2\n");
    let mut call = call(&["environment"]);
    call.env.insert("COLOUR".to_owned(), "blue".to_owned());
    let finished = grid.hostile(&call).expect("finished");
    let names: Vec<_> = text(&finished.stdout).lines().map(|line| line.split('=').next().expect("a name")).collect();
    assert_eq!(names, ["COLOUR", "HOME", "LANG", "PATH", "TMPDIR"]);
    assert!(text(&finished.stdout).contains("COLOUR=blue\n"));
}

#[test]
fn native_programs_need_the_operators_word() {
    let grid = grid_with(|config| config.allow_native = false);
    let failure = grid.run(&hostile_program(), &call(&["nothing"])).expect_err("refused");
    assert_eq!(failure.reason, Reason::Unsupported { missing: "native programs are not allowed here".to_owned() });
    assert_eq!(failure.reason.blame(), Blame::Worker);
}

#[test]
fn a_kernel_without_landlock_is_told_what_it_lacks() {
    let grid = grid_with(|config| config.newest_landlock_abi = 0);
    let Reason::Unsupported { missing } = reason(grid.run(&hostile_program(), &call(&["nothing"]))) else {
        panic!("not contained")
    };
    assert!(missing.contains("Landlock (Linux 5.13"), "{missing}");
    grid.run(&command(&["true"]), &call(&[])).expect("named commands need none");
}

#[test]
fn an_executable_with_another_hash_is_not_run() {
    let grid = grid();
    let expected = ProgramHash::of(b"another");
    let Program::Native { sha256: found, path } = hostile_program() else { panic!("native") };
    let wrong = Program::Native { sha256: expected, path };
    assert_eq!(reason(grid.run(&wrong, &call(&["nothing"]))), Reason::HashMismatch { expected, found });
}

#[test]
fn what_is_no_executable_is_told_so() {
    let grid = grid();
    let path = grid.directory.join("text");
    for (contents, mode) in [("no program", 0o700), ("#!/no/such/interpreter\n", 0o700), ("#!/bin/sh\n", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&path, contents).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        let outcome = grid.run(&native(&path), &call(&[]));
        assert!(matches!(reason(outcome), Reason::NotExecutable { .. }), "{contents}");
    }
    let gone = Program::Native { sha256: ProgramHash::of(b""), path: "/nowhere".into() };
    assert!(matches!(reason(grid.run(&gone, &call(&[]))), Reason::NotExecutable { .. }));
}

#[test]
fn a_script_runs_in_the_cage_when_its_interpreter_is_a_system_one() {
    let grid = grid();
    let path = grid.directory.join("script");
    std::fs::write(&path, "#!/bin/sh\nsort | head -1; cat /etc/passwd 2>/dev/null || echo \"$1\" refused\n")
        .expect("written");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o500)).expect("set");
    let call = Call { stdin: sandbox::Input::Bytes("b\na\n".into()), ..call(&["was"]) };
    assert_eq!(text(&grid.run(&native(&path), &call).expect("finished").stdout), "a\nwas refused\n");
}

#[test]
fn native_programs_do_not_run_reproducibly() {
    let grid = grid();
    let call = Call { reproducible: true, ..call(&["nothing"]) };
    assert!(matches!(reason(grid.run(&hostile_program(), &call)), Reason::BadCall { .. }));
}

/// A worker in a pod is no superuser, so the cage has to hold without privileges, too.
#[test]
fn the_cage_holds_for_an_unprivileged_worker() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return; // All other tests have shown it.
    }
    const NOBODY: u32 = 65534;
    let directory =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o711)).tempdir().expect("made");
    let path = directory.path();
    for (from, to) in [(TEST_HOST.as_ref(), "host"), (hostile_path(), "hostile")] {
        std::fs::copy(from, path.join(to)).expect("copied");
        std::fs::set_permissions(path.join(to), std::fs::Permissions::from_mode(0o755)).expect("set");
    }
    let own = path.join("own");
    std::fs::create_dir(&own).expect("made");
    let secret = own.join("secret");
    std::fs::write(&secret, "untouched").expect("written");
    for path in [&own, &secret] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("given");
    }
    for abi in [u32::MAX, 5] {
        let scenario = serde_json::json!({
            "directory": own.join("sandbox"),
            "native": path.join("hostile"),
            "args": ["reach outside", "HOST", secret],
            "newest_landlock_abi": abi,
        });
        // The shell becomes the host, so its number is known beforehand.
        let script = "exec \"$0\" \"$(printf %s \"$1\" | sed s/HOST/$$/)\"";
        let host = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(path.join("host"))
            .arg(scenario.to_string())
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .output()
            .expect("the host runs");
        assert!(host.status.success(), "{}", text(&host.stderr));
        let lines = text(&host.stdout).lines().map(|line| line.split_once(": ").expect("two parts"));
        assert_contained(&lines.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect::<Vec<_>>());
        assert_eq!(std::fs::read_to_string(&secret).expect("still there"), "untouched");
    }
}
