//! The form and the encoding of an answer that a client prefers, by the headers `Accept` and `Accept-Encoding` of RFC 9110.

use actix_web::http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap};

/// A client's preference for a form.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wish {
    /// Quality, 0 to 1000; 0 for an excluded form.
    quality: u16,
    /// Precision: 2 if the form is named, 1 if only its type is, 0 for any.
    precision: u8,
}

/// Whether a client prefers the form `main/sub`, such as `text/csv`, to JSON. A client that accepts both equally gets JSON,
/// unless it names the other form.
#[must_use]
pub fn prefers_to_json(headers: &HeaderMap, (main, sub): (&str, &str)) -> bool {
    let ranges: Vec<_> =
        headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
    let (form, json) = (wish(&ranges, main, sub), wish(&ranges, "application", "json"));
    let Some(form) = form.filter(|form| form.quality > 0) else { return false };
    match json.map_or(0, |json| json.quality).cmp(&form.quality) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => form.precision == 2,
        std::cmp::Ordering::Greater => false,
    }
}

/// The quality that the most precise media range of `Accept` gives to a media type.
fn wish(ranges: &[&str], main: &str, sub: &str) -> Option<Wish> {
    let wishes = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (given_main, given_sub) = parts.next()?.split_once('/')?;
        let is = |given: &str, form: &str| given.eq_ignore_ascii_case(form);
        let precision = match (given_main, given_sub) {
            ("*", "*") => 0,
            (given_main, "*") if is(given_main, main) => 1,
            (given_main, given_sub) if is(given_main, main) && is(given_sub, sub) => 2,
            _ => return None,
        };
        Some(Wish { quality: quality(parts), precision })
    });
    wishes.max_by_key(|wish| wish.precision)
}

/// Whether a client prefers gzip to the answer as it is. A client without the header could take any encoding, but many of these
/// decode none.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, 0);
    let values = headers.get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok());
    for coding in values.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = quality(parts);
        match name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "*" => any = Some(quality),
            "identity" => identity = quality,
            _ => (),
        }
    }
    gzip.or(any).is_some_and(|gzip| gzip > 0 && gzip >= identity)
}

/// The quality among the parameters of a range; 1000 if there is none, and 0 if it cannot be read.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u16 {
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    let Some(value) = value else { return 1_000 };
    match value.split_once('.').unwrap_or((value, "")) {
        ("1", zeros) if zeros.bytes().all(|digit| digit == b'0') => 1_000,
        ("0", digits) if digits.len() <= 3 => format!("{digits:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn the_form_of_the_higher_quality_is_chosen() {
        for (accept, is_csv) in [
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("text/html, */*;q=0.8", false),
            ("text/csv", true),
            ("TEXT/CSV; header=present", true),
            ("text/*", true),
            ("text/csv, application/json", true),
            ("text/csv, */*", true),
            ("text/csv;q=0", false),
            ("text/csv;q=0, text/*", false),
            ("text/csv;q=0.5, application/json", false),
            ("text/csv;q=0.5, application/json;q=0.25", true),
            ("application/json;q=0.5, text/csv;q=0.501", true),
            ("application/json;q=0, text/csv;q=0.001", true),
            ("text/csv;q=0.9, */*", false),
            ("text/csv; Q=1.000, application/json;q=0.999", true),
            ("text/csv;q=2", false),
        ] {
            let mut headers = HeaderMap::new();
            accept.split_inclusive(", ").for_each(|part| {
                headers.append(ACCEPT, HeaderValue::from_str(part.trim_end_matches(", ")).expect("a value"));
            });
            assert_eq!(prefers_to_json(&headers, ("text", "csv")), is_csv, "{accept}");
        }
    }

    #[test]
    fn an_answer_is_compressed_only_for_a_client_that_names_gzip_and_does_not_prefer_it_plain() {
        for (encodings, takes_it) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, GZIP;q=0.8, *;q=0.1", true),
            ("x-gzip", true),
            ("*", true),
            ("", false),
            ("identity", false),
            ("br, zstd", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("identity;q=0.5, gzip", true),
            ("gzip;q=x", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(encodings).expect("a value"));
            assert_eq!(takes_gzip(&headers), takes_it, "{encodings}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_browser_that_opens_an_address_prefers_a_page_and_a_program_does_not() {
        for (accept, is_page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("*/*", false),
            ("application/problem+json, application/json", false),
            ("text/event-stream", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_to_json(&headers, ("text", "html")), is_page, "{accept}");
        }
    }
}
