//! Completion scripts.

use std::process::{Command, Stdio};

use crate::helpers::{divvy, run_with_input};

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = divvy(&["completions", shell]).output().expect("run the command");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{shell}");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        for word in ["submit", "sum-of-primes", "idempotency-key", "watch"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
}

#[test]
fn states_and_kinds_are_completed_by_their_names_and_ids_by_nothing() {
    let script = divvy(&["completions", "bash"]).output().expect("run the command").stdout;
    let script = String::from_utf8(script).expect("UTF-8");
    let kinds = workloads::KINDS.iter().map(|kind| kind.name().to_string()).collect::<Vec<_>>().join(" ");
    for (words, expected) in [
        (["divvy", "job", "list", "--state", ""], "queued running paused succeeded failed canceled"),
        (["divvy", "job", "cancel", "--state", ""], "queued running paused succeeded failed canceled"),
        (["divvy", "job", "list", "--kind", ""], &*kinds),
        (["divvy", "job", "tasks", "--state", ""], "pending running succeeded failed"),
        (["divvy", "job", "list", "--limit", ""], ""),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-e", "-s"]).stdout(Stdio::piped());
        let before = words[3];
        let words = words.map(|word| format!("'{word}'")).join(" ");
        let call = format!("COMP_WORDS=({words}); COMP_CWORD=4; _divvy divvy '' {before}; echo \"${{COMPREPLY[@]}}\"");
        let output = run_with_input(&mut bash, &format!("cd /\n{script}\n{call}\n"));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{words}: {output:?}");
    }
}

#[test]
fn zsh_takes_its_script_before_compinit() {
    let script = divvy(&["completions", "zsh"]).output().expect("run the command").stdout;
    let script = String::from_utf8(script).expect("UTF-8");
    let guard = script.find("autoload -Uz compinit && compinit").expect("it loads compinit");
    assert!(guard < script.find("compdef _divvy divvy").expect("it registers itself"));
    // The shell itself, where it is installed.
    let mut zsh = Command::new("zsh");
    if zsh.arg("--version").output().is_ok_and(|output| output.status.success()) {
        let mut zsh = Command::new("zsh");
        let output =
            run_with_input(zsh.args(["-f", "-s"]), &format!("{script}\necho \"registered: $_comps[divvy]\"\n"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("registered: _divvy") && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn bash_takes_its_script() {
    let script = divvy(&["completions", "bash"]).output().expect("run the command").stdout;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-e", "-s"]).stdout(Stdio::piped());
    let input = format!("{}\ncomplete -p divvy\n", String::from_utf8(script).expect("UTF-8"));
    let output = run_with_input(&mut bash, &input);
    assert!(String::from_utf8_lossy(&output.stdout).contains("-F _divvy"), "{output:?}");
}
