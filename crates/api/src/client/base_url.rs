//! The URL of a service in the forms that people give it, in an option or a variable.

use url::Url;

/// The reason why a text is not the URL of a service. No message repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// The text is no URL.
    #[error("it is no URL{}", why(.0))]
    Malformed(url::ParseError),
    /// The URL has another scheme than `http` or `https`.
    #[error("a URL must begin with http:// or https:// and a host")]
    OtherScheme,
    /// The URL holds a secret, which would come into logs and process lists.
    #[error("a URL must not have a user or a password: tokens are in DIVVY_TOKEN and DIVVY_WORKER_TOKEN")]
    Credentials,
    /// The URL has a query or a fragment.
    #[error("a URL must not have a query or a fragment")]
    QueryOrFragment,
}

/// The parser's cause in parentheses; empty where the URL only lacks its scheme, which the message demands anyway.
fn why(error: &url::ParseError) -> String {
    if *error == url::ParseError::RelativeUrlWithoutBase { String::new() } else { format!(" ({error})") }
}

/// Parses the URL of a service. The paths of the service follow its path, if it has one.
///
/// # Errors
/// The text is no URL with `http` or `https`, or has a user, a password, a query or a fragment.
pub fn base_url(text: &str) -> Result<Url, InvalidUrl> {
    let url = Url::parse(text).map_err(InvalidUrl::Malformed)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(InvalidUrl::OtherScheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidUrl::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidUrl::QueryOrFragment);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_and_what_else_a_url_can_have_is_refused_without_repeating_it() {
        let path = base_url("http://host:1/prefix/").expect("a path");
        assert_eq!(path.as_str(), "http://host:1/prefix/");
        for (text, error) in [
            ("http://me:hush@host", InvalidUrl::Credentials),
            ("https://hush@host", InvalidUrl::Credentials),
            ("https://:hush@host", InvalidUrl::Credentials),
            ("http://host/?hush", InvalidUrl::QueryOrFragment),
            ("http://host/#hush", InvalidUrl::QueryOrFragment),
            ("ftp://me:hush@host", InvalidUrl::OtherScheme),
            ("hush", InvalidUrl::Malformed(url::ParseError::RelativeUrlWithoutBase)),
        ] {
            assert_eq!(base_url(text), Err(error), "{text}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
