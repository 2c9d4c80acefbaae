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
fn bash_takes_its_script() {
    let script = divvy(&["completions", "bash"]).output().expect("run the command").stdout;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-e", "-s"]).stdout(Stdio::piped());
    let input = format!("{}\ncomplete -p divvy\n", String::from_utf8(script).expect("UTF-8"));
    let output = run_with_input(&mut bash, &input);
    assert!(String::from_utf8_lossy(&output.stdout).contains("-F _divvy"), "{output:?}");
}
