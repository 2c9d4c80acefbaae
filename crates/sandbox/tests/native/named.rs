use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use sandbox::{Blame, Config, LocalProgram, NamedCommand, Reason, Sandbox};

use crate::helpers::{call, command, grid, reason, text};

#[test]
fn a_named_command_gets_its_first_arguments_environment_and_directory() {
    let grid = grid();
    let program = LocalProgram::Named(NamedCommand {
        argv: ["sh", "-c", "echo $GREETING $0 $1; pwd"].map(str::to_owned).into(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned()), ("OTHER".to_owned(), "1".to_owned())]),
        working_directory: Some("/usr".into()),
    });
    let finished = grid.run(&program, &call(&["a", "b"])).expect("finished");
    assert_eq!(text(&finished.stdout), "hello a b\n/usr\n");
    let mut call = call(&["a"]);
    call.env.insert("GREETING".to_owned(), "good day".to_owned());
    assert_eq!(text(&grid.run(&program, &call).expect("finished").stdout), "good day a\n/usr\n");
}

#[test]
fn a_named_command_works_in_a_scratch_directory_by_default() {
    let grid = grid();
    let program = command(&["sh", "-c", "echo x > file; ls; test \"$PWD\" = \"$HOME\""]);
    assert_eq!(text(&grid.run(&program, &call(&[])).expect("finished").stdout), "file\n");
    grid.assert_nothing_is_left();
}

#[test]
fn the_hosts_environment_is_not_inherited() {
    let grid = grid();
    let listed = grid.run(&command(&["env"]), &call(&[])).expect("finished").stdout;
    let names: Vec<_> = text(&listed).lines().map(|line| line.split('=').next().expect("a name")).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "TMPDIR"]);
}

#[test]
fn a_name_is_looked_for_in_the_commands_own_path_and_a_script_needs_no_interpreter_line() {
    let grid = grid();
    let [first, second] = ["first", "second"].map(|name| grid.directory.join(name));
    for (directory, mode) in [(&first, 0o600), (&second, 0o700)] {
        std::fs::create_dir(directory).expect("made");
        let path = directory.join("greet");
        std::fs::write(&path, "echo hello \"$1\"\n").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
    }
    let greet = |path: String| {
        let env = BTreeMap::from([("PATH".to_owned(), path)]);
        let program =
            LocalProgram::Named(NamedCommand { argv: vec!["greet".to_owned()], env, ..NamedCommand::default() });
        grid.run(&program, &call(&["you"]))
    };
    let path = format!("/nowhere:{}:{}", first.display(), second.display());
    assert_eq!(text(&greet(path).expect("finished").stdout), "hello you\n");
    let refused = reason(greet(format!("{}:/nowhere", first.display())));
    assert!(matches!(refused, Reason::NotExecutable { .. }) && refused.to_string().contains("ermission"), "{refused}");
}

#[test]
fn programs_are_the_first_to_end_when_memory_runs_out_and_their_supervisor_is_not() {
    let grid = grid();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("there");
    // The supervisor has its own score again soon after the program has begun.
    let script = "until [ \"$(cat /proc/$PPID/oom_score_adj)\" = \"$1\" ]; do :; done; cat /proc/self/oom_score_adj";
    let finished = grid.run(&command(&["sh", "-c", script, "sh", own.trim()]), &call(&[])).expect("finished");
    assert_eq!(text(&finished.stdout), "1000\n");
}

#[test]
fn a_command_that_is_not_there_is_told_so() {
    let grid = grid();
    assert!(matches!(reason(grid.run(&command(&["no-such-command"]), &call(&[]))), Reason::NotExecutable { .. }));
    assert!(matches!(reason(grid.run(&command(&[]), &call(&[]))), Reason::BadCall { .. }));
    grid.assert_nothing_is_left();
}

#[test]
fn a_working_directory_that_is_gone_is_named_as_the_workers_fault() {
    let grid = grid();
    let gone = grid.directory.join("gone");
    let argv = vec!["true".to_owned()];
    let program =
        LocalProgram::Named(NamedCommand { argv, working_directory: Some(gone.clone()), ..NamedCommand::default() });
    let reason = reason(grid.run(&program, &call(&[])));
    assert_eq!(reason.blame(), Blame::Worker);
    assert!(reason.to_string().contains(&format!("its working directory {}", gone.display())), "{reason}");
}

#[test]
fn a_directory_that_is_removed_meanwhile_is_made_again_and_other_processes_leave_it() {
    let grid = grid();
    std::fs::remove_dir_all(&grid.directory).expect("removed");
    grid.run(&command(&["true"]), &call(&[])).expect("finished");
    let processes = || std::fs::read_dir(grid.directory.join("scratch")).expect("there").count();
    assert_eq!(processes(), 1);
    let _other = Sandbox::open(Config::new(&grid.directory, 1)).expect("a sandbox");
    assert_eq!(processes(), 2, "the owner of the first directory lives");
}
