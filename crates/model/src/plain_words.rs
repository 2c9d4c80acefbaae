//! Translates the errors of serde and of the standard library for people who do not know Rust, and writes numbers with their
//! nouns.

/// A number with its noun: `1 task`, `2 tasks`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

use std::borrow::Cow;
use std::ops::Range;

/// Most characters of a client's name in a message.
const MAX_SHOWN_CHARS: usize = 64;

/// Most characters of a client's value, or of the path to it, in a message.
const MAX_VALUE_CHARS: usize = 200;

/// The demand on a value and the value itself, from the text of an error: `must be a whole number from 0 to 255, but is "x"`.
/// `None` if the text is none of serde's or the standard library's for a wrong value.
#[must_use]
pub fn predicate(error: &str) -> Option<String> {
    let fixed = match error {
        "invalid digit found in string" => "must be a whole number",
        "cannot parse integer from empty string" => "must be a whole number, but is empty",
        "number too large to fit in target type" => "is too large",
        "number too small to fit in target type" => "is too small",
        "number would be zero for non-zero type" => "must be at least 1, but is 0",
        "number out of range" => "must be a number from -1.7e308 to 1.7e308",
        "invalid float literal" => "must be a number",
        "cannot parse float from empty string" => "must be a number, but is empty",
        "provided string was not `true` or `false`" => "must be true or false",
        "invalid IP address syntax" => "must be an IP address, such as 127.0.0.1",
        "invalid socket address syntax" => "must be an IP address and a port, such as 127.0.0.1:8080",
        // The errors of the library of UUIDs.
        uuid if UUID_ERRORS.iter().any(|start| uuid.starts_with(start)) => "must be a UUID",
        _ => {
            let field = field_error(error).map(|(_, predicate)| predicate);
            return field.or_else(|| wrong_variant(error)).or_else(|| no_url(error)).or_else(|| wrong_value(error));
        }
    };
    Some(fixed.to_owned())
}

const UUID_ERRORS: [&str; 4] =
    ["invalid character: ", "invalid length: ", "invalid group count: ", "invalid group length in group "];

/// The fault of a text that was parsed alone, from the text of the error: `must be a whole number, but is "x"`. `None` as for
/// [`predicate`].
#[must_use]
pub fn parse_error(value: &str, error: &str) -> Option<String> {
    let is_negative = value.strip_prefix('-').is_some_and(|digits| digits.parse::<u128>().is_ok());
    if is_negative && error == "invalid digit found in string" {
        return Some(format!("must not be negative, but is {value}"));
    }
    let (predicate, value) = (predicate(error)?, brief(value));
    Some(match &predicate {
        is if is.starts_with("is ") => format!("{is}: {value}"),
        complete if complete.contains(", but is ") => predicate,
        must => format!("{must}, but is {value:?}"),
    })
}

/// The fault of a JSON text, from the error of serde_json: `it must be an object, but is an array`. `subject` is the value that
/// a predicate is about.
#[must_use]
pub fn json_error(subject: &str, error: &serde_json::Error) -> String {
    let cause = json_cause(error);
    match predicate(&cause) {
        Some(predicate) => format!("{subject} {predicate}"),
        None if error.is_data() && cause.starts_with("must ") => format!("{subject} {cause}"),
        None if error.is_data() => cause,
        None => format!("it is no JSON: {}", syntax(&cause)),
    }
}

/// The fault in the syntax of a JSON text.
fn syntax(cause: &str) -> String {
    if let Some(unfinished) = cause.strip_prefix("EOF while parsing ") {
        return match unfinished {
            "a value" => "it ends where a value must be".to_owned(),
            other => format!("it ends within {other}"),
        };
    }
    let plain = match cause {
        "recursion limit exceeded" => "it is nested too deeply, more than 127 levels",
        "expected value" => "a value must be here",
        "expected ident" => "a value must be here, such as true, false or null",
        "trailing characters" => "something follows its end",
        "key must be a string" => "a name in quotes must be here",
        "invalid escape" => "a backslash in a text must be followed by one of \"\\/bfnrtu",
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a control character in a text must be written as \\u and four digits"
        }
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "a \\u of a surrogate must be followed by that of the other half"
        }
        "invalid unicode code point" => "a text must be UTF-8",
        other => other,
    };
    plain.to_owned()
}

/// The text of an error of serde_json without the place.
#[must_use]
pub fn json_cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// Like [`json_error`], with the place in the text: `(line 1, column 1)`.
#[must_use]
pub fn json_error_at(subject: &str, error: &serde_json::Error) -> String {
    let message = json_error(subject, error);
    if error.line() == 0 {
        return message;
    }
    format!("{message} (line {}, column {})", error.line(), error.column())
}

/// The place of an error of serde_json: the field that the error names at `path`, else `path`. Empty if the whole value is
/// wrong.
#[must_use]
pub fn json_place(path: &str, error: &serde_json::Error) -> String {
    let cause = json_cause(error);
    match field_error(&cause) {
        // The path of an unknown field ends with its name.
        Some(_) if cause.starts_with("unknown ") && !path.is_empty() => brief(path).into_owned(),
        Some((name, _)) if path.is_empty() => shown(name),
        Some((name, _)) => brief(&format!("{path}.{name}")).into_owned(),
        None => brief(path).into_owned(),
    }
}

/// A text that a client may have chosen, or its start if it is long.
fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The start of a name that a client may have chosen, in quotes if it is unusual.
pub(crate) fn shown(name: &str) -> String {
    let start: String = name.chars().take(MAX_SHOWN_CHARS).collect();
    let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if start.is_empty() || !start.chars().all(is_usual) { format!("{start:?}") } else { start }
}

/// The missing, unknown or doubled field of an object, and the predicate for it.
fn field_error(error: &str) -> Option<(&str, String)> {
    let quoted = |start: &str| error.strip_prefix(start)?.strip_suffix('`');
    if let Some(name) = quoted("missing field `") {
        return Some((name, "is missing".to_owned()));
    }
    if let Some(name) = quoted("duplicate field `") {
        return Some((name, "is given more than once: give it once".to_owned()));
    }
    let unknown = error.strip_prefix("unknown field `")?;
    let (name, takes) = match unknown.rsplit_once("`, expected ") {
        // Of "one of `a`, `b`" or "`a` or `b`".
        Some((name, known)) => (name, known.trim_start_matches("one of ").replace("` or `", "`, `").replace('`', "")),
        None => (unknown.strip_suffix("`, there are no fields")?, "none".to_owned()),
    };
    Some((name, format!("is no field here: this object takes {takes}")))
}

/// The predicate for ``unknown variant `a`, expected `b` or `c` ``.
fn wrong_variant(error: &str) -> Option<String> {
    let (found, known) = error.strip_prefix("unknown variant `")?.rsplit_once("`, expected ")?;
    Some(format!("must be {}, but is {:?}", known.replace('`', ""), brief(found)))
}

/// The predicate for the error of the library of URLs about a text without a scheme.
fn no_url(error: &str) -> Option<String> {
    let found = error.strip_prefix("relative URL without a base: ")?;
    Some(format!("must be a URL with its scheme, such as file:///mnt/results, but is {found}"))
}

/// The fault of a text of TOML, from the message and the place of the parser's error: `line 3: name is missing`.
#[must_use]
pub fn toml_error(text: &str, message: &str, at: Option<Range<usize>>) -> String {
    let message = match (field_error(message), predicate(message)) {
        (Some((name, predicate)), _) => format!("{} {predicate}", shown(name)),
        (None, Some(predicate)) => {
            let key = at.as_ref().and_then(|at| toml_key(text, at.start));
            format!("{} {predicate}", key.unwrap_or("the value"))
        }
        (None, None) => message.trim_end().replace('\n', ", "),
    };
    match at.and_then(|at| text.get(..at.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

/// The key of the line in which a value begins.
fn toml_key(text: &str, value: usize) -> Option<&str> {
    let (key, _) = text.get(..value)?.rsplit('\n').next()?.split_once('=')?;
    let key = key.trim();
    let is_bare = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c));
    is_bare.then_some(key)
}

/// The predicate for `invalid type: …, expected …` and its like.
fn wrong_value(error: &str) -> Option<String> {
    let rest = error.strip_prefix("invalid type: ").or_else(|| error.strip_prefix("invalid value: "));
    if let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        return Some(format!("must be {}, but is {}", expectation(expected), brief(finding(found))));
    }
    let (length, expected) = error.strip_prefix("invalid length ")?.split_once(", expected ")?;
    Some(format!("must be {}, but has {length} entries", expectation(expected)))
}

/// The value that serde expects.
fn expectation(expected: &str) -> String {
    let plain = match expected {
        "a map" => "an object",
        "a sequence" => "an array",
        "a boolean" => "true or false",
        "unit" => "null",
        "a string" | "a borrowed string" | "str" | "string" => "a string",
        "f32" | "f64" => "a number",
        "any valid JSON value" => "a JSON value",
        "u8" | "a nonzero u8" => return whole(expected, u8::MAX.into()),
        "u16" | "a nonzero u16" => return whole(expected, u16::MAX.into()),
        "u32" | "a nonzero u32" => return whole(expected, u32::MAX.into()),
        "u64" | "a nonzero u64" | "usize" | "a nonzero usize" => return whole(expected, u64::MAX),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        other if other.starts_with("struct ") => "an object",
        other => match other.strip_prefix("a tuple of size ") {
            Some(size) => return format!("an array of {size} entries"),
            None => other,
        },
    };
    plain.to_owned()
}

fn whole(expected: &str, most: u64) -> String {
    format!("a whole number from {} to {most}", u8::from(expected.starts_with("a nonzero ")))
}

/// The value that serde found.
fn finding(found: &str) -> &str {
    match found {
        "map" => "an object",
        "sequence" => "an array",
        "unit value" | "Option value" => "null",
        other => {
            let value = ["integer ", "floating point ", "boolean ", "string ", "character "];
            let value = value.iter().find_map(|kind| other.strip_prefix(kind));
            value.map_or(other, |value| value.trim_matches('`'))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::{NonZeroU32, NonZeroU64};

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    fn wrong<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        json_error("it", &serde_json::from_str::<T>(json).expect_err(json))
    }

    #[test]
    fn a_wrong_value_is_told_without_the_words_of_a_programming_language() {
        assert_eq!(wrong::<u8>("300"), "it must be a whole number from 0 to 255, but is 300");
        assert_eq!(wrong::<u64>("-1"), format!("it must be a whole number from 0 to {}, but is -1", u64::MAX));
        assert_eq!(wrong::<NonZeroU32>("0"), "it must be a whole number from 1 to 4294967295, but is 0");
        assert!(wrong::<NonZeroU64>(r#""a, expected b""#).ends_with(r#"but is "a, expected b""#));
        assert!(wrong::<u32>("1.5").ends_with("but is 1.5"));
        assert_eq!(wrong::<f64>("true"), "it must be a number, but is true");
        assert_eq!(wrong::<f64>("-1e400"), "it must be a number from -1.7e308 to 1.7e308");
        assert_eq!(wrong::<bool>("null"), "it must be true or false, but is null");
        assert_eq!(wrong::<String>("[1]"), "it must be a string, but is an array");
        assert_eq!(wrong::<Vec<u8>>("{}"), "it must be an array, but is an object");
        assert_eq!(wrong::<BTreeMap<String, u8>>("[]"), "it must be an object, but is an array");
        assert_eq!(wrong::<(u8, u8)>("[1]"), "it must be an array of 2 entries, but has 1 entries");
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Two {
        #[serde(rename = "first")]
        _first: u8,
        #[serde(rename = "second")]
        _second: Choice,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Choice {
        On,
        Off,
        Auto,
    }

    #[test]
    fn fields_and_choices_are_told_in_plain_words_at_their_place() {
        let wrong = |json: &str, path: &str| {
            let error = serde_json::from_str::<Two>(json).expect_err(json);
            json_error(&json_place(path, &error), &error)
        };
        assert_eq!(wrong(r#"{"first": 1}"#, ""), "second is missing");
        assert_eq!(wrong(r#"{"first": 1}"#, "a.b"), "a.b.second is missing");
        assert_eq!(wrong(r#"{"first": 1, "first": 1}"#, ""), "first is given more than once: give it once");
        let unknown = "is no field here: this object takes first, second";
        assert_eq!(wrong(r#"{"third": 1}"#, "a.third"), format!("a.third {unknown}"));
        assert_eq!(wrong(r#"{"third": 1}"#, ""), format!("third {unknown}"));
        assert_eq!(wrong(r#"{"a `b`, expected c": 1}"#, ""), format!("\"a `b`, expected c\" {unknown}"));
        let choice = wrong(r#"{"first": 1, "second": "x"}"#, "second");
        assert_eq!(choice, r#"second must be one of on, off, auto, but is "x""#);
    }

    #[test]
    fn of_a_long_value_or_name_the_start_is_told() {
        let long = "é".repeat(100_000);
        let wrong = |json: &str, path: &str| {
            let error = serde_json::from_str::<Two>(json).expect_err("wrong");
            json_error(&json_place(path, &error), &error)
        };
        let told = [
            wrong(&format!(r#"{{"first": "{long}"}}"#), "first"),
            wrong(&format!(r#"{{"first": 1, "second": "{long}"}}"#), "second"),
            wrong(&format!(r#"{{"{long}": 1}}"#), ""),
            wrong(&format!(r#"{{"{long}": 1}}"#), &long),
            wrong(r#"{"first": 1}"#, &long),
            wrong(r#"{"first": "x"}"#, &long),
            parse_error(&long, "invalid digit found in string").expect("known"),
            parse_error(&long, "number too large to fit in target type").expect("known"),
        ];
        for told in told {
            assert!(told.contains("éé") && told.chars().count() < 400, "{} characters", told.chars().count());
        }
        let exact = "x".repeat(MAX_VALUE_CHARS);
        let is_whole = |value: &str| parse_error(value, "invalid float literal").expect("known").contains(&exact);
        assert!(is_whole(&exact) && !parse_error(&exact, "invalid float literal").expect("known").contains('…'));
    }

    #[test]
    fn a_text_of_toml_is_told_of_in_one_line_with_its_place() {
        let text = "[a]\nx = 1\n";
        assert_eq!(
            toml_error(text, "unknown field `x`, expected `y`", Some(4..5)),
            "line 2: x is no field here: this object takes y"
        );
        assert_eq!(toml_error(text, "missing field `y`", Some(0..3)), "line 1: y is missing");
        let wrong = "invalid type: integer `1`, expected a string";
        assert_eq!(toml_error(text, wrong, Some(8..9)), "line 2: x must be a string, but is 1");
        assert_eq!(toml_error(text, "first\nsecond\n", None), "first, second");
    }

    #[test]
    fn a_text_that_is_no_json_is_called_so_with_its_place() {
        let wrong = |json: &str| json_error_at("it", &serde_json::from_str::<Vec<u8>>(json).expect_err(json));
        assert_eq!(wrong("[1, 300]"), "it must be a whole number from 0 to 255, but is 300 (line 1, column 7)");
        let starts = |json: &str, start: &str| {
            let told = wrong(json);
            assert!(told.starts_with(&format!("it is no JSON: {start} (line ")), "{told}");
        };
        starts("[1\n", "it ends within a list");
        starts("", "it ends where a value must be");
        starts("[1,]", "trailing comma");
        starts("[x]", "a value must be here");
        starts("[trux]", "a value must be here, such as true, false or null");
        starts("[1] 2", "something follows its end");
        let nested = |json: &str| json_error("it", &serde_json::from_str::<serde_json::Value>(json).expect_err(json));
        assert_eq!(nested(&"[".repeat(200)), "it is no JSON: it is nested too deeply, more than 127 levels");
        assert_eq!(nested("{1: 2}"), "it is no JSON: a name in quotes must be here");
        let escape = "it is no JSON: a backslash in a text must be followed by one of \"\\/bfnrtu";
        assert_eq!(nested(r#""\x""#), escape);
        let control = "it is no JSON: a control character in a text must be written as \\u and four digits";
        assert_eq!(nested("\"\n\""), control);
        let surrogate = "it is no JSON: a \\u of a surrogate must be followed by that of the other half";
        assert_eq!(nested(r#""\ud800x""#), surrogate);
    }

    #[test]
    fn numbers_and_truths_from_text_have_plain_words_too() {
        let of = |error: &dyn std::fmt::Display| predicate(&error.to_string()).unwrap_or_default();
        assert_eq!(of(&"x".parse::<u8>().expect_err("x")), "must be a whole number");
        assert_eq!(of(&"".parse::<u8>().expect_err("empty")), "must be a whole number, but is empty");
        assert_eq!(of(&"300".parse::<u8>().expect_err("300")), "is too large");
        assert_eq!(of(&"-300".parse::<i8>().expect_err("-300")), "is too small");
        assert_eq!(of(&"0".parse::<NonZeroU32>().expect_err("0")), "must be at least 1, but is 0");
        assert_eq!(of(&"x".parse::<f64>().expect_err("x")), "must be a number");
        assert_eq!(of(&"x".parse::<bool>().expect_err("x")), "must be true or false");
        assert_eq!(predicate("a sentence of our own"), None);
        let parsed = |value: &str| parse_error(value, &value.parse::<u8>().expect_err(value).to_string());
        assert_eq!(parsed("x").as_deref(), Some("must be a whole number, but is \"x\""));
        assert_eq!(parsed("300").as_deref(), Some("is too large: 300"));
        assert_eq!(parsed("-1").as_deref(), Some("must not be negative, but is -1"));
        assert_eq!(parsed("").as_deref(), Some("must be a whole number, but is empty"));
    }
}
