//! The style sheet and the scripts, each under a name that holds a hash of its content, so that a browser may keep it for
//! ever and does not show a page with those of an earlier version.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file that pages refer to.
#[derive(Debug)]
pub struct Asset {
    /// The path, with a hash of the content.
    pub path: String,
    /// The media type.
    pub content_type: &'static str,
    /// The content.
    pub content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, content: &'static str) -> Self {
        let hash: String = Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{stem}.{hash}.{extension}"), content_type, content }
    }
}

pub(crate) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("../assets/style.css")));

pub(crate) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| script("dashboard", include_str!("../assets/dashboard.js")));

pub(crate) static CONTROLS: LazyLock<Asset> =
    LazyLock::new(|| script("controls", include_str!("../assets/controls.js")));

pub(crate) static TICKS: LazyLock<Asset> = LazyLock::new(|| script("ticks", include_str!("../assets/ticks.js")));

pub(crate) static STREAM: LazyLock<Asset> = LazyLock::new(|| script("stream", include_str!("../assets/stream.js")));

pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("../assets/icon.svg")));

fn script(stem: &str, content: &'static str) -> Asset {
    Asset::new(stem, "js", "text/javascript; charset=utf-8", content)
}

/// The asset at a path.
#[must_use]
pub fn asset(path: &str) -> Option<&'static Asset> {
    all().find(|asset| asset.path == path)
}

/// The asset in place of one of another version: a page may come from a coordinator of another release than its assets.
#[must_use]
pub fn stand_in(path: &str) -> Option<&'static Asset> {
    let wanted = stem_and_extension(path)?;
    all().find(|asset| stem_and_extension(&asset.path) == Some(wanted))
}

fn all() -> impl Iterator<Item = &'static Asset> {
    [&*STYLE, &*SCRIPT, &*CONTROLS, &*TICKS, &*STREAM, &*ICON].into_iter()
}

/// The parts of an asset's path that are the same in each version.
fn stem_and_extension(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix("/assets/")?.split('.');
    let (stem, hash, extension) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hash && parts.next().is_none()).then_some((stem, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_found_under_its_hash_alone() {
        assert_eq!(asset(&STYLE.path).expect("it is there").content, STYLE.content);
        assert!(asset("/assets/style.css").is_none() && asset("/assets/style.0000000000000000.css").is_none());
    }

    #[test]
    fn an_asset_stands_in_for_the_same_one_of_another_version() {
        let found = stand_in("/assets/ticks.0000000000000000.js").expect("it is there");
        assert_eq!(found.content, TICKS.content);
        for path in [
            "/assets/style.css",
            "/assets/style.0.css",
            "/assets/style.0000000000000000.js",
            "/assets/style.0000000000000000.css.css",
            "/style.0000000000000000.css",
        ] {
            assert!(stand_in(path).is_none(), "{path}");
        }
    }
}
