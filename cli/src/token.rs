//! `divvy token`.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::ValueEnum;
use sha2::{Digest, Sha256};

use crate::arguments::{NewToken, Right, Token, TokenCommand};
use crate::failure::Failure;
use crate::print::print_line;

/// What every token begins with, so that scanners of repositories and logs can find one.
const PREFIX: &str = "divvy_";

/// Random bytes of a token: too many to guess, so that a plain hash of it needs no salt and no slow function.
const TOKEN_BYTES: usize = 32;

/// The longest file of tokens.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

pub(crate) fn run(arguments: &Token) -> Result<(), Failure> {
    let TokenCommand::New(new) = &arguments.command;
    let token = random_token().context("draw a random token")?;
    let hash = hex(&Sha256::digest(token.as_bytes()));
    add(&new.file, |text| with_entry(text, new, &hash))?;
    print_line(&token)
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The file's text with the token's entry at its end; everything that is there stays as it is.
fn with_entry(text: &str, new: &NewToken, hash: &str) -> Result<String, Failure> {
    let file = new.file.display();
    let tokens: toml::Table =
        toml::from_str(text).map_err(|error| Failure::Usage(format!("{file} is no file of tokens: {error}")))?;
    let entries = match tokens.get("token") {
        None => &Vec::new(),
        Some(toml::Value::Array(entries)) => entries,
        Some(_) => return Err(Failure::Usage(format!("{file} is no file of tokens: token must be [[token]]"))),
    };
    if entries.iter().any(|entry| entry.get("name").and_then(toml::Value::as_str) == Some(&new.name)) {
        let advice = "remove its entry first, or choose another name";
        return Err(Failure::Usage(format!("{file} has a token of the name {} already: {advice}", new.name)));
    }
    let mut rights = new.rights.clone();
    rights.sort_unstable();
    rights.dedup();
    let rights = rights.iter().map(|right| format!("{:?}", name(*right))).collect::<Vec<_>>().join(", ");
    let gap = if text.is_empty() {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    let name = &new.name;
    Ok(format!("{text}{gap}[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nrights = [{rights}]\n"))
}

fn name(right: Right) -> String {
    right.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Replaces the file by what `change` makes of its text, as a whole: a coordinator may be reading it.
fn add(path: &Path, change: impl FnOnce(&str) -> Result<String, Failure>) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::Failed(format!("cannot {what} {}: {error}", path.display()));
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (text, permissions) = match fs::metadata(&target) {
        Ok(there) if !there.is_file() || there.len() > MAX_FILE_BYTES => {
            return Err(Failure::Usage(format!("{} is no file of tokens", path.display())));
        }
        Ok(there) => (fs::read_to_string(&target).map_err(|error| failed("read", error))?, there.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), Permissions::from_mode(0o600)),
        Err(error) => return Err(failed("read", error)),
    };
    let text = change(text.strip_prefix('\u{feff}').unwrap_or(&text))?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut part = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
        part.write_all(text.as_bytes())?;
        part.as_file().sync_all()?;
        part.persist(&target)?;
        Ok(())
    };
    write().map_err(|error| failed("write", error))
}
