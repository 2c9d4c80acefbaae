//! What serde and the standard library say of a value that they cannot read, in words for people who use no Rust, and numbers
//! with their nouns.

/// A number with its noun: `1 task`, `2 tasks`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What a value must be, and what it is, from the text of an error: `must be a whole number from 0 to 255, but is "x"`. None
/// where the text is none of serde's or the standard library's for a wrong value.
#[must_use]
pub fn predicate(error: &str) -> Option<String> {
    let fixed = match error {
        "invalid digit found in string" => "must be a whole number",
        "cannot parse integer from empty string" => "must be a whole number, but is empty",
        "number too large to fit in target type" => "is too large",
        "number too small to fit in target type" => "is too small",
        "number would be zero for non-zero type" => "must be at least 1, but is 0",
        "invalid float literal" => "must be a number",
        "cannot parse float from empty string" => "must be a number, but is empty",
        "provided string was not `true` or `false`" => "must be true or false",
        "invalid IP address syntax" => "must be an IP address, such as 127.0.0.1",
        "invalid socket address syntax" => "must be an IP address and a port, such as 127.0.0.1:8080",
        // What the library of UUIDs says.
        uuid if UUID_ERRORS.iter().any(|start| uuid.starts_with(start)) => "must be a UUID",
        _ => return wrong_value(error),
    };
    Some(fixed.to_owned())
}

const UUID_ERRORS: [&str; 4] =
    ["invalid character: ", "invalid length: ", "invalid group count: ", "invalid group length in group "];

/// What is wrong with a text that was parsed alone, from the text of the error: `must be a whole number, but is "x"`. None as for
/// [`predicate`].
#[must_use]
pub fn parse_error(value: &str, error: &str) -> Option<String> {
    let predicate = predicate(error)?;
    Some(match &predicate {
        is if is.starts_with("is ") => format!("{is}: {value}"),
        complete if complete.contains(", but is ") => predicate,
        must => format!("{must}, but is {value:?}"),
    })
}

/// What is wrong with a JSON text, from the error of serde_json: `it must be an object, but is an array`. `subject` is the
/// value that a predicate is about.
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

/// What is wrong with the syntax of a JSON text.
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

/// As [`json_error`], with the place in the text: `(line 1, column 1)`.
#[must_use]
pub fn json_error_at(subject: &str, error: &serde_json::Error) -> String {
    let message = json_error(subject, error);
    if error.line() == 0 {
        return message;
    }
    format!("{message} (line {}, column {})", error.line(), error.column())
}

/// The predicate for `invalid type: …, expected …` and its like.
fn wrong_value(error: &str) -> Option<String> {
    let rest = error.strip_prefix("invalid type: ").or_else(|| error.strip_prefix("invalid value: "));
    if let Some((found, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        return Some(format!("must be {}, but is {}", expectation(expected), finding(found)));
    }
    let (length, expected) = error.strip_prefix("invalid length ")?.split_once(", expected ")?;
    Some(format!("must be {}, but has {length} entries", expectation(expected)))
}

/// What serde expects.
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

/// What serde found.
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
        assert_eq!(wrong::<bool>("null"), "it must be true or false, but is null");
        assert_eq!(wrong::<String>("[1]"), "it must be a string, but is an array");
        assert_eq!(wrong::<Vec<u8>>("{}"), "it must be an array, but is an object");
        assert_eq!(wrong::<BTreeMap<String, u8>>("[]"), "it must be an object, but is an array");
        assert_eq!(wrong::<(u8, u8)>("[1]"), "it must be an array of 2 entries, but has 1 entries");
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
        assert_eq!(parsed("").as_deref(), Some("must be a whole number, but is empty"));
    }
}
