use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandbox::{Blame, Call, LocalProgram, ProgramHash, Reason};

use crate::helpers::{
    RunResult, TEST_HOST, call, command, grid, grid_with, hostile_path, hostile_program, native, reason, text,
};

fn lines(outcome: RunResult) -> Vec<(String, String)> {
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
    // By the filter's answer: a kernel without core scheduling, or without tables of futexes, refuses it with another error. And
    // programs copy by themselves where the answer is that of a file that cannot be sent.
    for (what, answer) in [
        ("take a core alone", "EPERM"),
        ("table of futexes", "EPERM"),
        ("piece of a file in a pipe", "EINVAL"),
        ("file sent to a pipe", "EINVAL"),
        ("piece of a pipe in another", "EINVAL"),
    ] {
        assert!(lines.contains(&(what.to_owned(), answer.to_owned())), "{what}: {lines:?}");
    }
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
fn files_have_no_extended_attributes_and_no_command_complains_of_it() {
    let lines = lines(grid().hostile(&call(&["ask for attributes"])));
    let others: Vec<_> =
        lines.iter().filter(|(_, answer)| !["EOPNOTSUPP", "ENOTSUP"].contains(&answer.as_str())).collect();
    assert!(lines.len() == 12 && others.is_empty(), "{lines:?}");
}

#[test]
fn a_program_gets_three_descriptors_and_a_clean_environment() {
    use rustix::io::{FdFlags, fcntl_setfd};
    // As a library in C may leave it: open in every child.
    let open = std::fs::File::open("/dev/null").expect("open");
    fcntl_setfd(&open, FdFlags::empty()).expect("set");
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
    let LocalProgram::Native { sha256: found, path } = hostile_program() else { panic!("native") };
    let wrong = LocalProgram::Native { sha256: expected, path };
    assert_eq!(reason(grid.run(&wrong, &call(&["nothing"]))), Reason::HashMismatch { expected, found });
}

#[test]
fn what_is_no_executable_is_told_so() {
    let grid = grid();
    let path = grid.directory.join("text");
    for (contents, mode) in [("no program", 0o700), ("#!/no/such/interpreter\n", 0o700), ("#!/bin/sh\n", 0o600)] {
        std::fs::write(&path, contents).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        let outcome = grid.run(&native(&path), &call(&[]));
        assert!(matches!(reason(outcome), Reason::NotExecutable { .. }), "{contents}");
    }
    let gone = LocalProgram::Native { sha256: ProgramHash::of(b""), path: "/nowhere".into() };
    assert!(matches!(reason(grid.run(&gone, &call(&[]))), Reason::NotExecutable { .. }));
}

#[test]
fn an_interpreter_or_a_loader_that_is_not_there_is_told_so() {
    let grid = grid();
    let mut executable = std::fs::read(hostile_path()).expect("read");
    let loader = executable.windows(4).position(|part| part == b"/ld-").expect("it is linked dynamically");
    executable[loader + 1..loader + 4].copy_from_slice(b"no-");
    for (name, contents, told) in [
        ("script", &b"#!/bin/sh\r\necho\r\n"[..], r#"the interpreter "/bin/sh\r""#),
        ("executable", &executable[..], "its dynamic loader is not on this machine"),
    ] {
        let path = grid.directory.join(name);
        std::fs::write(&path, contents).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("set");
        let reason = reason(grid.run(&native(&path), &call(&[])));
        assert!(matches!(reason, Reason::NotExecutable { .. }) && reason.to_string().contains(told), "{reason}");
    }
}

#[test]
fn an_executable_that_is_cut_off_is_not_its_workers_fault() {
    let grid = grid();
    let whole = std::fs::read(hostile_path()).expect("read");
    let loader = whole.windows(4).position(|part| part == b"/ld-").expect("it is linked dynamically");
    let path = grid.directory.join("cut");
    std::fs::write(&path, &whole[..loader]).expect("written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("set");
    let reason = reason(grid.run(&native(&path), &call(&[])));
    // The client's fault, as that of other files that cannot be executed.
    assert!(matches!(reason, Reason::NotExecutable { .. }) && reason.to_string().contains("cut off"), "{reason}");
}

#[test]
fn a_script_runs_in_the_cage_when_its_interpreter_is_a_system_one() {
    let grid = grid();
    let path = grid.directory.join("script");
    std::fs::write(&path, "#!/bin/sh\nsort | head -1; cat /etc/passwd 2>/dev/null || echo \"$1\" refused\n")
        .expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o500)).expect("set");
    let call = Call { stdin: sandbox::Input::Bytes("b\na\n".into()), ..call(&["was"]) };
    assert_eq!(text(&grid.run(&native(&path), &call).expect("finished").stdout), "a\nwas refused\n");
}

#[test]
fn a_machine_without_descriptors_for_the_cage_is_to_blame() {
    let directory = tempfile::tempdir().expect("a directory");
    let helper = directory.path().join("helper");
    let (mut finished, mut failed) = (0, 0);
    for most in 4..=24 {
        std::fs::write(&helper, format!("#!/bin/sh\nulimit -n {most}\nexec {TEST_HOST} \"$@\"\n")).expect("written");
        std::fs::set_permissions(&helper, Permissions::from_mode(0o700)).expect("set");
        let grid = grid_with(|config| config.helper = helper.clone());
        match grid.run(&hostile_program(), &call(&["nothing"])) {
            Ok(_) => finished += 1,
            Err(failure) => {
                let is_of_worker = matches!(failure.reason, Reason::Sandbox { .. } | Reason::Unsupported { .. });
                assert!(is_of_worker, "{most} descriptors: {}", failure.reason);
                failed += 1;
            }
        }
    }
    assert!(finished > 0 && failed > 0, "{finished} finished, {failed} failed");
}

#[test]
fn a_program_does_not_take_back_its_niceness_where_the_worker_could() {
    let directory = tempfile::tempdir().expect("a directory");
    let [helper, script] = ["helper", "script"].map(|name| directory.path().join(name));
    // Only a superuser may raise the limit.
    let raise = format!("#!/bin/bash\nulimit -e 40 2>/dev/null\nexec {TEST_HOST} \"$@\"\n");
    let ask = "#!/bin/sh\n[ \"$(nice)\" = \"$(nice -n -5 nice 2>/dev/null)\" ] && echo kept\n";
    for (path, contents) in [(&helper, raise.as_str()), (&script, ask)] {
        std::fs::write(path, contents).expect("written");
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).expect("set");
    }
    let grid = grid_with(|config| config.helper = helper.clone());
    assert_eq!(text(&grid.run(&native(&script), &call(&[])).expect("finished").stdout), "kept\n");
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
    let Some(worker) = Unprivileged::new() else { return };
    let secret = worker.directory().join("secret");
    std::fs::write(&secret, "untouched").expect("written");
    worker.own(&secret);
    for abi in [u32::MAX, 5] {
        let host = worker.run(&["reach outside", "HOST", secret.to_str().expect("UTF-8")], abi);
        assert!(host.status.success(), "{}", text(&host.stderr));
        let lines = text(&host.stdout).lines().map(|line| line.split_once(": ").expect("two parts"));
        assert_contained(&lines.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect::<Vec<_>>());
        assert_eq!(std::fs::read_to_string(&secret).expect("still there"), "untouched");
    }
}

#[test]
fn an_unprivileged_workers_programs_have_their_limits_and_what_they_need() {
    let Some(worker) = Unprivileged::new() else { return };
    let host = worker.run(&["reach inside"], u32::MAX);
    assert!(host.status.success() && !text(&host.stdout).contains(": E"), "{}", text(&host.stdout));
    let limits = [
        (&["memory", "10000000000"][..], "MemoryLimit"),
        (&["fork"], "ProcessLimit"),
        (&["fill with nameless files", "100000000"], "ScratchLimit"),
        (&["fill a closed directory", "100000000"], "ScratchLimit"),
        (&["fill an unsearchable directory", "100000000"], "ScratchLimit"),
        // An executable that cannot be read makes a process that cannot be looked into.
        (&["hide"], "Hidden"),
    ];
    for (mode, said) in limits {
        let host = worker.run(mode, u32::MAX);
        assert!(text(&host.stderr).contains(said), "{mode:?}: {}", text(&host.stderr));
    }
}

const NOBODY: u32 = 65534;

/// A worker of another user, when the tests are a superuser's; else all other tests are such already.
struct Unprivileged(tempfile::TempDir);

impl Unprivileged {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let open = Permissions::from_mode(0o711);
        let directory = tempfile::Builder::new().permissions(open).tempdir().expect("made");
        for (from, to) in [(TEST_HOST.as_ref(), "host"), (hostile_path(), "hostile")] {
            let to = directory.path().join(to);
            std::fs::copy(from, &to).expect("copied");
            std::fs::set_permissions(to, Permissions::from_mode(0o755)).expect("set");
        }
        let worker = Self(directory);
        std::fs::create_dir(worker.directory()).expect("made");
        worker.own(&worker.directory());
        Some(worker)
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("own")
    }

    fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("given");
    }

    /// Runs the hostile program; the argument HOST becomes the host's number.
    fn run(&self, args: &[&str], newest_landlock_abi: u32) -> Output {
        let scenario = serde_json::json!({
            "directory": self.directory().join("sandbox"),
            "native": self.0.path().join("hostile"),
            "args": args,
            "newest_landlock_abi": newest_landlock_abi,
        });
        // The shell becomes the host, so its number is known beforehand.
        let script = "exec \"$0\" \"$(printf %s \"$1\" | sed s/HOST/$$/)\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(self.0.path().join("host")).arg(scenario.to_string());
        command.uid(NOBODY).gid(NOBODY).current_dir("/").output().expect("the host runs")
    }
}
