//! The page that takes a token.

use maud::{Markup, html};

use crate::layout::{NavigationPage, Page, Viewer, page};

/// The page at `/sign-in`; `next` is where to go then.
#[must_use]
pub fn sign_in_page(viewer: &Viewer, next: &str, was_wrong: bool) -> Markup {
    let content = html! {
        h1 { "Sign in" }
        form.form method="post" action="/sign-in" {
            input type="hidden" name="next" value=(next);
            div.field {
                label for="token" { "Token" }
                p.hint #token-hint { "A token of this service, which an administrator makes with " code { "divvy token new" } "." }
                @if was_wrong { p.wrong #token-wrong role="alert" { "This service does not know the token." } }
                input #token type="password" name="token" required autocomplete="current-password" autofocus
                    aria-describedby=(if was_wrong { "token-hint token-wrong" } else { "token-hint" })
                    aria-invalid=[was_wrong.then_some("true")];
            }
            div { button.main type="submit" { "Sign in" } }
        }
    };
    page(&Page { title: "Sign in", place: NavigationPage::Elsewhere, is_live: false, viewer }, &content)
}
