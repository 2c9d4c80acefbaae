//! Output of the command on a terminal: a pseudo terminal of the kernel, opened by `script` of util-linux.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::helpers::{Grid, NOWHERE, eventually};

const ROWS: NonZeroU16 = NonZeroU16::new(30).expect("30 is not 0");
const COLUMNS: NonZeroU16 = NonZeroU16::new(150).expect("150 is not 0");

/// A command on a terminal of its own.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    fn open(grid: &Grid, arguments: &str, variables: &[(&str, &str)]) -> Self {
        let line = format!("exec {} {arguments}", env!("CARGO_BIN_EXE_divvy"));
        Self::run(grid, &line, variables, (ROWS, COLUMNS))
    }

    /// A terminal with the shell's standard size of old.
    fn small(grid: &Grid, arguments: &str) -> Self {
        let size = (NonZeroU16::new(24).expect("24 is not 0"), NonZeroU16::new(80).expect("80 is not 0"));
        Self::run(grid, &format!("exec {} {arguments}", env!("CARGO_BIN_EXE_divvy")), &[], size)
    }

    fn run(grid: &Grid, line: &str, variables: &[(&str, &str)], size: (NonZeroU16, NonZeroU16)) -> Self {
        let (rows, columns) = size;
        let line = format!("stty rows {rows} cols {columns}; {line}");
        // A signal that this test ignores, as below `nohup`, no shell can catch.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", "script"]);
        command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        command
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .env("DIVVY_URL", &grid.url);
        command.envs(variables.iter().copied());
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run script");
        let keys = script.stdin.take().expect("piped");
        let mut output = script.stdout.take().expect("piped");
        let screen = Screen { parser: vt100::Parser::new(rows, columns, 0), bytes: Vec::new() };
        let screen = Arc::new(Mutex::new(screen));
        let drawn = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut screen = drawn.lock().expect("no panic");
                screen.parser.process(&bytes[..count]);
                screen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Self { script, keys, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("no panic").parser.screen().contents()
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("no panic").bytes).into_owned()
    }

    fn is_full_screen(&self) -> bool {
        self.screen.lock().expect("no panic").parser.screen().alternate_screen()
    }

    fn shows(&self, parts: &[&str]) {
        eventually(&format!("the screen shows {parts:?}: {}", self.text()), || {
            let text = self.text();
            parts.iter().all(|part| text.contains(part)).then_some(())
        });
    }

    fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).and_then(|()| self.keys.flush()).expect("press a key");
    }

    fn exit_code(&mut self) -> Option<i32> {
        eventually("the command ends", || self.script.try_wait().expect("wait for script")).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn watch_shows_the_grid_live_and_gives_the_terminal_back() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600", "--tasks", "40"]);
    for key in ["q", "\u{3}"] {
        let mut terminal = Terminal::open(&grid, "watch", &[]);
        terminal.shows(&[
            "divvy http://127.0.0.1:",
            "worker-1",
            "worker-2",
            &id,
            "sleep",
            "running",
            "0/40",
            "priority 5",
        ]);
        assert!(terminal.is_full_screen());
        let later = grid.submit(&["sleep", "--seconds", "600", "--require", "gpu=yes"]);
        terminal.shows(&[&later, "queued"]);
        terminal.press(key);
        assert_eq!(terminal.exit_code(), Some(0));
        eventually("the screen is as before", || (!terminal.is_full_screen()).then_some(()));
        assert!(terminal.raw().contains("\u{1b}[?25h"), "the cursor is visible again");
    }
}

#[test]
fn watch_stays_when_the_grid_goes_and_says_so() {
    let mut grid = Grid::start();
    let mut terminal = Terminal::open(&grid, "watch", &[]);
    terminal.shows(&["worker-1"]);
    grid.kill();
    terminal.shows(&["cannot reach the grid", "worker-1"]);
    terminal.press("q");
    assert_eq!(terminal.exit_code(), Some(0));
    let mut terminal = Terminal::open(&grid, "watch", &[("DIVVY_URL", NOWHERE)]);
    assert_eq!(terminal.exit_code(), Some(3));
    eventually("the line comes", || terminal.text().contains("error: cannot reach the grid").then_some(()));
    assert!(!terminal.raw().contains("\u{1b}[?1049h"), "the screen was left alone");
}

#[test]
fn colours_are_for_terminals_unless_no_color_is_set() {
    let grid = Grid::start();
    let id = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &id]);
    for (variables, is_coloured) in [
        (&[][..], true),
        (&[("NO_COLOR", "")], true),
        (&[("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
        (&[("TERM", "")], false),
    ] {
        let mut terminal = Terminal::open(&grid, "job list", variables);
        assert_eq!(terminal.exit_code(), Some(0));
        eventually("the list comes", || terminal.text().contains("succeeded").then_some(()));
        assert_eq!(terminal.raw().contains("\u{1b}[32msucceeded"), is_coloured, "{variables:?}");
    }
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let mut terminal = Terminal::open(&grid, "watch", variables);
        terminal.shows(&["succeeded"]);
        terminal.press("q");
        assert_eq!(terminal.exit_code(), Some(0));
        let raw = terminal.raw();
        let has_colour = raw.contains("\u{1b}[38;5;2;");
        assert_eq!(has_colour, is_coloured, "{variables:?}: {raw:?}");
    }
}

#[test]
fn waiting_draws_a_bar_on_a_terminal_and_leaves_none_behind() {
    let grid = Grid::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tasks");
    std::fs::write(&path, "[1, 2, 3, 4, 5, 6, 7, 8]").expect("write a file");
    let id = grid.submit(&["tasks", path.to_str().expect("UTF-8")]);
    let claim = br#"{"worker_id": "mine", "kinds": ["tasks"], "max_tasks": 8, "wait_seconds": 30}"#;
    let claimed: Value = serde_json::from_str(&grid.post_internal("/v1/worker/claim", claim)).expect("a claim");
    let mut terminal = Terminal::open(&grid, &format!("job wait {id} --output quiet"), &[]);
    terminal.shows(&["/8 tasks"]);
    // The tasks end once the bar has been seen.
    let attempt = claimed["attempt"].as_str().expect("an attempt");
    let results = br#"{"results": [1, 2, 3, 4, 5, 6, 7, 8]}"#;
    grid.post_internal(&format!("/v1/worker/tasks/{attempt}/complete"), results);
    assert_eq!(terminal.exit_code(), Some(0));
    eventually("only the id is left", || (terminal.text().trim() == id).then_some(()));
}

#[test]
fn small_terminal_shows_every_column_whole_and_the_keys() {
    let grid = Grid::start();
    let over = grid.submit(&["count-primes", "1", "10"]);
    grid.stdout(&["job", "wait", &over]);
    let id = grid.submit(&["sleep", "--seconds", "600", "--tasks", "40"]);
    let tail = id.rsplit('-').next().expect("an id");
    let mut terminal = Terminal::small(&grid, "watch");
    terminal.shows(&["WORKER", "SLOTS", "LOAD", "FREE", "1/1", tail, "PRI", "0/40", "100%", "1/1", " ago", "now"]);
    terminal.press("?");
    terminal.shows(&["q, Esc, Ctrl-C", "show or hide this help"]);
    terminal.press("?");
    eventually("the help is gone", || (!terminal.text().contains("Ctrl-C")).then_some(()));
    terminal.press("q");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn watch_asks_for_a_terminal_that_can_draw() {
    let grid = Grid::start();
    let mut terminal = Terminal::open(&grid, "watch", &[("TERM", "dumb")]);
    assert_eq!(terminal.exit_code(), Some(2));
    eventually("the line comes", || terminal.text().contains("error: watch moves the cursor").then_some(()));
}

#[test]
fn watch_ends_quietly_when_its_terminal_hangs_up() {
    let grid = Grid::start();
    let folder = tempfile::tempdir().expect("a folder");
    let told = folder.path().join("code");
    // A handler of the shell's own is not inherited, as ignoring the signal would be.
    let line = format!("trap : HUP; {} watch; echo $? > {}", env!("CARGO_BIN_EXE_divvy"), told.display());
    let mut terminal = Terminal::run(&grid, &line, &[], (ROWS, COLUMNS));
    terminal.shows(&["worker-1"]);
    terminal.script.kill().expect("kill the terminal");
    let code =
        eventually("the command ends", || std::fs::read_to_string(&told).ok().filter(|code| code.ends_with('\n')));
    assert_eq!(code, "129\n", "what a shell reports of a program that SIGHUP has ended");
}

#[test]
fn waiting_tells_no_pace_before_there_is_one() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "600", "--tasks", "8"]);
    let mut terminal = Terminal::small(&grid, &format!("job wait {id}"));
    terminal.shows(&[&id, "0% 0/8 tasks"]);
    let text = terminal.text();
    assert!(!text.contains("/s") && !text.contains("left"), "{text}");
    grid.stdout(&["job", "cancel", &id]);
    assert_eq!(terminal.exit_code(), Some(4));
}

#[test]
fn sum_of_a_long_range_tells_on_a_terminal_how_long_it_will_take() {
    let grid = Grid::start();
    // Much more work than is waited for.
    let mut terminal = Terminal::open(&grid, "sum-of-primes 1 1e18 --workers 1", &[]);
    terminal.shows(&[" tasks, ", "/s, ", " left"]);
    terminal.press("\u{3}");
    assert_eq!(terminal.exit_code(), Some(130));
}

#[test]
fn statistics_have_a_chart_on_a_terminal() {
    let grid = Grid::start();
    let id = grid.submit(&["sleep", "--seconds", "0", "--tasks", "5"]);
    grid.stdout(&["job", "wait", &id]);
    let mut terminal = Terminal::open(&grid, "statistics --grain month", &[]);
    assert_eq!(terminal.exit_code(), Some(0));
    terminal.shows(&["START (UTC)", "tasks succeeded by month", "5 █", "0 █"]);
    let mut terminal = Terminal::open(&grid, "statistics --grain month", &[("TERM", "dumb")]);
    assert_eq!(terminal.exit_code(), Some(0));
    terminal.shows(&["START (UTC)", "sleep"]);
    assert!(!terminal.text().contains('█'), "{}", terminal.text());
}
