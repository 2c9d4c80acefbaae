//! The URLs of a shared store and of the place of large results.

use anyhow::ensure;
use serde::{Deserialize, Deserializer, de};
use store::{Objects, PlaceUrlError};
use url::Url;

/// Refuses places that no start could use, as far as their URLs tell.
pub(super) fn check(store: Option<&StoreUrl>, results: Option<&Url>) -> anyhow::Result<()> {
    ensure!(
        results.is_none_or(|url| url.scheme() != "memory"),
        "DIVVY_RESULTS_URL must name a place that outlives the process, such as file:///mnt/results: results in \
         memory are lost with it"
    );
    ensure!(
        store.is_none() || results.is_some(),
        "DIVVY_STORE_URL needs DIVVY_RESULTS_URL: a place for large results that all coordinators share, such as \
         s3://bucket/path or file:///mnt/shared"
    );
    Ok(results.map_or(Ok(()), Objects::check)?)
}

/// Reads `DIVVY_RESULTS_URL`.
pub(super) fn results_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Objects::parse_url(&text).map(Some).map_err(|error| match error {
        // The wording of `Url`'s own deserialization.
        PlaceUrlError::Syntax(error) => de::Error::custom(format!("{error}: {text:?}")),
        PlaceUrlError::File => de::Error::custom(error),
    })
}

/// The URI of a database, as libpq reads it: it may name several hosts. It may hold a password, which no message shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StoreUrl(pub(super) String);

impl TryFrom<String> for StoreUrl {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let is_one = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        ensure!(is_one, "it must be such as postgres://user:password@host/database");
        Ok(Self(text))
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreUrl(postgres://…)")
    }
}
