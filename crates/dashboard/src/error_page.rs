//! A page for what cannot be shown.

use maud::{Markup, html};

use crate::layout::{Page, Place, Viewer, page};
use crate::words::sentence;

/// A page that says why there is no other.
#[must_use]
pub fn error_page(viewer: &Viewer, title: &str, detail: &str) -> Markup {
    let content = html! {
        h1 { (title) }
        p.lead { (sentence(detail)) "." }
        p { a href="/" { "To the overview" } }
    };
    page(&Page { title, place: Place::Elsewhere, is_live: false, viewer }, &content)
}
