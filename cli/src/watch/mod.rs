//! `divvy watch`: the grid on a live screen. `snapshot.rs` asks, `screen.rs` draws with the parts of `columns.rs` and
//! `chart.rs`, this file brings them together.

mod chart;
mod columns;
mod screen;
mod snapshot;

use std::io::{IsTerminal, stdout};
use std::mem::ManuallyDrop;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Terminal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::arguments::Watch;
use crate::failure::Failure;
use crate::table::{is_coloured, is_dumb};
use crate::watch::screen::{Palette, View, draw};
use crate::watch::snapshot::Snapshot;

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The exit code of a program that SIGHUP has ended, as a shell reports it.
const TERMINAL_GONE: u8 = 128 + 1;

/// Key strokes that may wait: more than anyone types while a screen is drawn.
const INPUT_BOUND: usize = 16;

pub(crate) async fn run(arguments: &Watch) -> Result<(), Failure> {
    if !stdout().is_terminal() {
        let message = "watch draws on a terminal, but stdout is none: use `divvy stats` or `divvy job list` instead";
        return Err(Failure::Usage(message.to_owned()));
    }
    if is_dumb() {
        let message = "watch moves the cursor, which the terminal cannot as TERM says: use `divvy stats` instead";
        return Err(Failure::Usage(message.to_owned()));
    }
    let grid = arguments.url.client()?;
    // A grid that is not there is told before the screen is cleared.
    let first = Snapshot::take(&grid).await?;
    let mut stop = Box::pin(service::shutdown_signal().context("catch signals")?);
    let mut hang_up = Box::pin(service::hang_up().context("catch signals")?);
    let is_coloured = is_coloured();
    // Without colors the screen asks for none; crossterm's own way would drop the other attributes too.
    force_color_output(true);
    let mut view = View::new(grid.url().as_str(), Palette { is_coloured });
    view.show(Ok(first));
    let mut screen = Screen::open().context("open the terminal")?;
    let (mut input, mut snapshots) = (read_input(), take_snapshots(grid));
    loop {
        // A terminal that takes no more is gone, and nothing can be told on it.
        screen.0.draw(|frame| draw(frame, &view)).map_err(|_| Failure::Quiet(TERMINAL_GONE))?;
        tokio::select! {
            // A hang-up is one of the signals to stop.
            biased;
            () = &mut hang_up => return Err(Failure::Quiet(TERMINAL_GONE)),
            () = &mut stop => return Ok(()),
            Some(snapshot) = snapshots.recv() => view.show(snapshot),
            event = input.recv() => match event {
                Some(Event::Key(key)) if is_quit(key) => return Ok(()),
                Some(Event::Key(key)) if is_help(key) => view.toggle_help(),
                Some(_) => (),
                None => return Err(Failure::Quiet(TERMINAL_GONE)),
            },
        }
    }
}

/// The terminal while it shows the screen; given back as it was when dropped, and by a hook when the program panics.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    /// Sets the terminal up in place of `ratatui::try_init`, whose hook and `restore` print an error, and so panic, where
    /// the terminal is gone.
    fn open() -> std::io::Result<Self> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = ratatui::try_restore();
            hook(panic);
        }));
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Self(ManuallyDrop::new(Terminal::new(CrosstermBackend::new(stdout()))?)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal's own drop shows the cursor too, but prints an error, and so panics, where that fails.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Keys and terminal events, read on a thread of its own: reading blocks, and the runtime must not wait for it when it ends.
fn read_input() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(INPUT_BOUND);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn take_snapshots(grid: Client) -> mpsc::Receiver<Result<Snapshot, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and there is a first snapshot already.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if sender.send(Snapshot::take(&grid).await).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn is_help(key: KeyEvent) -> bool {
    key.kind == KeyEventKind::Press && matches!(key.code, KeyCode::Char('?' | 'h' | 'H'))
}

fn is_quit(key: KeyEvent) -> bool {
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (is_quit || is_ctrl_c)
}
