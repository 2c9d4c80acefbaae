//! The URL of a shared store.

use anyhow::ensure;
use serde::Deserialize;

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
