//! `divvy program put`.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use api::client::Client;
use bytes::Bytes;
use model::ProgramHash;
use sha2::{Digest, Sha256};

use crate::arguments::{Format, PutProgram};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line};

/// The longest program that is read.
const MAX_PROGRAM_BYTES: u64 = 1 << 30;

pub(super) async fn run(grid: &Client, format: Format, arguments: &PutProgram) -> Result<(), Failure> {
    let bytes = Bytes::from(read(&arguments.file)?);
    let hash = hash_of(&bytes);
    let program = patiently(async || grid.put_program(hash, bytes.clone()).await).await?;
    match format {
        Format::Json => print_json(&program),
        Format::Table | Format::Quiet => print_line(&program.sha256.to_string()),
    }
}

pub(super) fn hash_of(bytes: &[u8]) -> ProgramHash {
    ProgramHash(Sha256::digest(bytes).into())
}

/// The bytes of a file; of stdin for '-'.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let open = || -> std::io::Result<Box<dyn Read>> {
        Ok(if is_stdin { Box::new(stdin()) } else { Box::new(File::open(path)?) })
    };
    let read = open().and_then(|source| source.take(MAX_PROGRAM_BYTES + 1).read_to_end(&mut bytes));
    let length = read.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    if length as u64 > MAX_PROGRAM_BYTES {
        return Err(Failure::Usage(format!("{name} is longer than {MAX_PROGRAM_BYTES} bytes")));
    }
    Ok(bytes)
}
