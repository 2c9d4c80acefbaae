//! Messages about URLs that cannot be a place of results.

use store::{Objects, PlaceUrlError};
use url::Url;

fn refusal(url: &str, settings: &[(&str, &str)]) -> String {
    let url: Url = url.parse().expect("a URL");
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let error = Objects::open_with(&url, settings).expect_err("it is refused").to_string();
    assert!(error.contains(url.as_str()), "{error}");
    error
}

#[test]
fn a_url_that_means_nothing_is_refused_with_its_name() {
    for url in ["ftp://host/results", "nothing:", "file://host/elsewhere"] {
        refusal(url, &[]);
    }
}

#[test]
fn a_url_of_a_directory_begins_at_the_root() {
    for text in
        ["file:results", "file:/results", "file://results", "file:./results", "file://host/results", "FILE:results"]
    {
        assert_eq!(Objects::parse_url(text), Err(PlaceUrlError::File), "{text}");
    }
    for text in ["file:///mnt/results", "FILE:///mnt/results", "s3://bucket/results"] {
        assert!(Objects::parse_url(text).is_ok(), "{text}");
    }
    assert!(matches!(Objects::parse_url("results"), Err(PlaceUrlError::Syntax(_))));
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    for url in ["s3://me:hush@bucket/results", "https://me:hush@host/results?key=hush"] {
        let error = Objects::open_with(&url.parse().expect("a URL"), []).expect_err("it is refused").to_string();
        assert!(error.contains("must not have a password") && !error.contains("hush"), "{error}");
    }
}

#[cfg(not(feature = "azure"))]
#[test]
fn without_the_feature_azure_its_urls_are_refused_with_the_feature_that_they_need() {
    for url in ["az://container/results", "abfss://container@account.dfs.core.windows.net/results"] {
        assert!(refusal(url, &[]).contains("store/azure"));
    }
}

#[cfg(feature = "azure")]
#[test]
fn azure_is_opened_with_an_account_and_refused_without() {
    assert!(refusal("az://container/results", &[]).to_lowercase().contains("account"));
    let settings = [("azure_storage_account_name", "account"), ("azure_storage_account_key", "a2V5")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Objects::open_with(&"az://container/results".parse().expect("a URL"), settings).expect("it is opened");
}

#[cfg(not(feature = "gcp"))]
#[test]
fn without_the_feature_gcp_its_urls_are_refused_with_the_feature_that_they_need() {
    assert!(refusal("gs://bucket/results", &[]).contains("store/gcp"));
}

#[cfg(feature = "gcp")]
#[test]
fn google_is_opened_with_a_service_account_and_refused_with_a_broken_one() {
    refusal("gs://bucket/results", &[("google_service_account_key", "no JSON")]);
    let settings = [(
        "google_service_account_key".to_owned(),
        r#"{"private_key":"private_key","private_key_id":"id","client_email":"ann@example.org","disable_oauth":true}"#
            .to_owned(),
    )];
    Objects::open_with(&"gs://bucket/results".parse().expect("a URL"), settings).expect("it is opened");
}
