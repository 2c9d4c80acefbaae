//! The style sheet and the scripts, each under a name that holds a hash of its content, so that a browser may keep it for
//! ever and never shows a page with those of another version.

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
    [&*STYLE, &*SCRIPT, &*CONTROLS, &*TICKS, &*STREAM, &*ICON].into_iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_found_under_its_hash_alone() {
        assert_eq!(asset(&STYLE.path).expect("it is there").content, STYLE.content);
        assert!(asset("/assets/style.css").is_none() && asset("/assets/style.0000000000000000.css").is_none());
    }
}
