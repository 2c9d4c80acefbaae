//! `divvy watch`: the grid on a live screen. `snapshot.rs` asks, `screen.rs` draws, this file brings both together.

mod screen;
mod snapshot;

use std::io::{IsTerminal, stdout};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use api::client::Client;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::style::force_color_output;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::arguments::Watch;
use crate::failure::Failure;
use crate::table::is_coloured;
use crate::watch::screen::{Palette, View, draw};
use crate::watch::snapshot::Snapshot;

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Key strokes that may wait: more than anyone types while a screen is drawn.
const INPUT_BOUND: usize = 16;

pub(crate) async fn run(arguments: &Watch) -> Result<(), Failure> {
    if !stdout().is_terminal() {
        let message = "watch draws on a terminal, but stdout is none: use `divvy stats` or `divvy job list` instead";
        return Err(Failure::Usage(message.to_owned()));
    }
    let grid = Client::new(&arguments.place.coordinator)?;
    // A grid that is not there is told before the screen is cleared.
    let first = Snapshot::take(&grid).await?;
    let mut stop = Box::pin(service::shutdown_signal().context("catch signals")?);
    let is_coloured = is_coloured();
    // Without colours none is asked for; crossterm's own way would cut the other attributes too.
    force_color_output(true);
    let mut view = View::new(grid.url().as_str(), Palette { is_coloured });
    view.show(Ok(first));
    let mut screen = Screen::open().context("open the terminal")?;
    let (mut input, mut snapshots) = (read_input(), take_snapshots(grid));
    loop {
        screen.0.draw(|frame| draw(frame, &view)).context("draw the screen")?;
        tokio::select! {
            Some(snapshot) = snapshots.recv() => view.show(snapshot),
            event = input.recv() => match event {
                Some(Event::Key(key)) if is_quit(key) => return Ok(()),
                Some(_) => (),
                None => return Ok(()),
            },
            () = &mut stop => return Ok(()),
        }
    }
}

/// The terminal while it shows the screen; given back as it was when dropped, and by a hook when the program panics.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> std::io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is typed, from a thread of its own: reading blocks, and no runtime may wait for it at the end.
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

fn is_quit(key: KeyEvent) -> bool {
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (is_quit || is_ctrl_c)
}
