//! The frame of all pages.

use maud::{DOCTYPE, Markup, html};

use crate::assets::{CONTROLS, ICON, SCRIPT, STYLE, TICKS};

/// The viewer of a page, and the time of the view.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// The name of the token; none where none was shown.
    pub name: Option<String>,
    /// Whether tokens are demanded at all.
    pub has_tokens: bool,
    /// Whether jobs may be submitted and changed.
    pub may_submit: bool,
    /// Whether programs may be uploaded and run.
    pub may_run_programs: bool,
    /// Whether workers may be drained.
    pub may_administer: bool,
    /// Now.
    pub now: jiff::Timestamp,
    /// The version of the page's content; a page is asked for again when the grid has another.
    pub version: String,
}

/// The pages of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NavigationPage {
    Overview,
    Stream,
    Jobs,
    Submit,
    Workers,
    Coordinators,
    Statistics,
    Elsewhere,
}

const PLACES: &[(NavigationPage, &str, &str)] = &[
    (NavigationPage::Overview, "/", "Overview"),
    (NavigationPage::Stream, "/task-stream", "Task stream"),
    (NavigationPage::Jobs, "/jobs", "Jobs"),
    (NavigationPage::Submit, "/submit", "Submit"),
    (NavigationPage::Workers, "/grid/workers", "Workers"),
    (NavigationPage::Coordinators, "/grid/coordinators", "Coordinators"),
    (NavigationPage::Statistics, "/statistics", "Statistics"),
];

/// The title, the section and the content of a page.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) place: NavigationPage,
    /// Whether the page follows the grid.
    pub(crate) is_live: bool,
    pub(crate) viewer: &'a Viewer,
}

pub(crate) fn page(page: &Page<'_>, content: &Markup) -> Markup {
    let Page { title, place, is_live, viewer } = page;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · divvy" }
                link rel="icon" href=(ICON.path) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.path);
                script src=(SCRIPT.path) data-ticks=(TICKS.path) defer {}
                script src=(CONTROLS.path) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "divvy" }
                    nav aria-label="Pages" {
                        @for (other, path, name) in PLACES {
                            a href=(path) aria-current=[(other == place).then_some("page")] { (name) }
                        }
                    }
                    div.session {
                        @if *is_live {
                            p #live role="status" { "updated when loaded" }
                            button #pause type="button" aria-pressed="false" hidden { "Pause" }
                        }
                        (session(viewer))
                    }
                }
                main #main tabindex="-1" data-version=[is_live.then_some(&viewer.version)] { (content) }
                div #toasts aria-live="polite" {}
            }
        }
    }
}

fn session(viewer: &Viewer) -> Markup {
    html! {
        @match (&viewer.name, viewer.has_tokens) {
            (Some(name), _) => {
                form method="post" action="/sign-out" { span.who { (name) } button type="submit" { "Sign out" } }
            }
            (None, true) => a href="/sign-in" { "Sign in" },
            (None, false) => {},
        }
    }
}
