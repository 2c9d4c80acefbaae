//! The page of an error.

use maud::{Markup, html};

use crate::layout::{NavigationPage, Page, Viewer, page};
use crate::words::sentence;

/// A page that explains an error, with a link to `back`: its path and its text.
#[must_use]
pub fn error_page(viewer: &Viewer, title: &str, detail: &str, (path, name): (&str, &str)) -> Markup {
    let content = html! {
        h1 { (title) }
        p.lead { (sentence(detail)) "." }
        p { a href=(path) { (name) } }
    };
    page(&Page { title, place: NavigationPage::Elsewhere, is_live: false, viewer }, &content)
}
