//! Text from elsewhere, such as a worker's error, as it may go to a terminal.

use std::borrow::Cow;

/// Text in one line and without control characters, which could move the cursor or change the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_unprintable) {
        Cow::Owned(text.split(is_unprintable).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "))
    } else {
        Cow::Borrowed(text)
    }
}

fn is_unprintable(c: char) -> bool {
    // Beside the controls: line and paragraph separators, and the marks that turn the direction of what follows.
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one_and_escapes_are_cut() {
        assert_eq!(printable("two\r\nlines"), "two lines");
        assert_eq!(printable("\u{1b}[31mred\u{9b}2J"), "[31mred 2J");
        assert_eq!(printable("a\u{202e}b"), "a b");
        assert!(matches!(printable("plain ünïcode"), Cow::Borrowed(_)));
    }
}
