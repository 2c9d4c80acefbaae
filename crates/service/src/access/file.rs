//! Reads the file of tokens, and adds tokens to it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use model::toml_error;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Rights, TokenEntry};

/// The prefix of every token, by which scanners of leaked secrets recognize one.
const TOKEN_PREFIX: &str = "divvy_";

const TOKEN_BYTES: usize = 32;

/// The longest file of tokens: some thousand entries.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

const MAX_NAME_CHARS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    #[serde(default, rename = "token")]
    tokens: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    sha256: String,
    rights: Rights,
}

pub(super) fn read(file: &Path) -> anyhow::Result<Vec<TokenEntry>> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    parse(opened).with_context(|| format!("read {}", file.display()))
}

fn parse(file: impl Read) -> anyhow::Result<Vec<TokenEntry>> {
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_FILE_BYTES, "it is longer than {MAX_FILE_BYTES} bytes");
    let file: TokensFile =
        toml::from_str(&text).map_err(|error| anyhow!(toml_error(&text, error.message(), error.span())))?;
    let mut entries: Vec<TokenEntry> = Vec::with_capacity(file.tokens.len());
    for FileEntry { name, sha256, rights } in file.tokens {
        check_name(&name)?;
        ensure!(!rights.0.is_empty(), "the token {name:?} has no rights");
        ensure!(entries.iter().all(|entry| *entry.name != *name), "the name {name:?} is there twice");
        let hash = hash_from_hex(&sha256).with_context(|| format!("sha256 of {name:?} has 64 hexadecimal digits"))?;
        entries.push(TokenEntry { name: name.into(), hash, rights });
    }
    Ok(entries)
}

/// Names go into logs and into a file as they are.
fn check_name(name: &str) -> anyhow::Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    ensure!(
        (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(allowed),
        "a token's name has 1 to {MAX_NAME_CHARS} of A-Z, a-z, 0-9, '-', '_', '.' and '@', but is {name:?}"
    );
    Ok(())
}

fn hash_from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if hex.len() != 2 * hash.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A fresh token: 256 bits from the system's generator.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_token() -> anyhow::Result<String> {
    let (mut secret, mut filled) = ([0; TOKEN_BYTES], 0);
    while filled < secret.len() {
        let rest = &mut secret[filled..];
        let got = rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).map_err(io::Error::from);
        filled += got.context("get random numbers")?;
    }
    Ok(format!("{TOKEN_PREFIX}{}", to_hex(&secret)))
}

/// Adds a fresh token to a file and returns the token: the file has its hash only. A file that does not exist is created,
/// readable by its owner alone.
///
/// # Errors
/// The name is in the file already or is not valid, no right is given, or the file cannot be read or written.
pub fn add(file: &Path, name: &str, rights: &Rights) -> anyhow::Result<String> {
    check_name(name)?;
    ensure!(!rights.0.is_empty(), "give the token a right at least: read, submit, programs or admin");
    let token = new_token()?;
    append(file, name, rights, &token).with_context(|| format!("add a token to {}", file.display()))?;
    Ok(token)
}

fn append(path: &Path, name: &str, rights: &Rights, token: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    ensure!(file.metadata()?.is_file(), "it is no regular file");
    // Two processes that add a token at the same time would not see each other's name.
    file.lock()?;
    let entries = parse(&file)?;
    ensure!(entries.iter().all(|entry| *entry.name != *name), "it has a token {name:?} already");
    let length = file.seek(SeekFrom::End(0))?;
    let rights = rights.0.iter().map(|right| format!("{:?}", right.as_str())).collect::<Vec<_>>().join(", ");
    let hash = to_hex(&Sha256::digest(token));
    let before = if length == 0 { "" } else { "\n" };
    let entry = format!("{before}[[token]]\nname = {name:?}\nsha256 = {hash:?}\nrights = [{rights}]\n");
    // The entry is written in one piece, so that a reader sees all of it or nothing.
    let written = file.write_all(entry.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half an entry, as on a full disk, would make the whole file invalid.
        let _ = file.set_len(length);
    }
    written?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_says_what_is_wrong() {
        let wrong = |text: &str| format!("{:#}", parse(text.as_bytes()).expect_err(text));
        let entry = |name: &str, hash: &str, rights: &str| {
            format!("[[token]]\nname = {name:?}\nsha256 = {hash:?}\nrights = {rights}\n")
        };
        let hash = "ab".repeat(32);
        assert!(parse(entry("a", &hash, "[\"read\"]").as_bytes()).is_ok());
        assert!(wrong(&entry("a", "ab", "[\"read\"]")).contains("sha256 of \"a\" has 64 hexadecimal digits"));
        assert!(wrong(&entry("a", &hash, "[]")).contains("the token \"a\" has no rights"));
        assert!(
            wrong(&entry("a", &hash, "[\"write\"]"))
                .contains("line 4: rights must be one of read, submit, programs, admin, but is \"write\"")
        );
        assert!(wrong(&entry("a", &hash, "[\"read\"]").repeat(2)).contains("is there twice"));
        assert_eq!(wrong("token = 1"), "line 1: token must be an array, but is 1");
    }
}
