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

/// JSON in one line and without control characters, of the same value. Parameters and results come as their clients and workers
/// wrote them: the space in them may hold line breaks, and their strings may hold what a terminal takes for a control sequence.
pub(crate) fn json_line(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unprintable) {
        return Cow::Borrowed(json);
    }
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // These stand between values alone.
            '\t' | '\n' | '\r' => line.push(' '),
            // These stand in strings alone.
            c if is_unprintable(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

fn is_unprintable(c: char) -> bool {
    // Beside the controls: line and paragraph separators, and the marks that turn the direction of what follows.
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_others_is_one_line_of_the_same_value() {
        let job = "{\"params\":{\"a\":\r\n1,\n\t\"b\":\"x\u{9b}31m\u{7f}\u{202e}é\\n\"}}";
        let line = json_line(job);
        assert_eq!(line, r#"{"params":{"a":  1,  "b":"x\u009b31m\u007f\u202eé\n"}}"#);
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert_eq!(value(&line), value(job));
        assert!(matches!(json_line(r#"{"plain": "ünïcode"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_become_one_and_escapes_are_cut() {
        assert_eq!(printable("two\r\nlines"), "two lines");
        assert_eq!(printable("\u{1b}[31mred\u{9b}2J"), "[31mred 2J");
        assert_eq!(printable("a\u{202e}b"), "a b");
        assert!(matches!(printable("plain ünïcode"), Cow::Borrowed(_)));
    }
}
