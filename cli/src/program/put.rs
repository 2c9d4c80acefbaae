//! `divvy program put`.

use std::fs::File;
use std::io::Read;
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

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error| Failure::Usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let length = file.take(MAX_PROGRAM_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if length as u64 > MAX_PROGRAM_BYTES {
        return Err(Failure::Usage(format!("{} is longer than {MAX_PROGRAM_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}
