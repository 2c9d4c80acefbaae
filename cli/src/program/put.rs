//! `divvy program put`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use api::Program;
use api::client::{Client, Error};
use bytes::Bytes;
use model::ProgramHash;
use sha2::{Digest, Sha256};

use crate::arguments::{Format, PutProgram};
use crate::failure::Failure;
use crate::follow::Away;
use crate::print::{print_json, print_line};

/// The longest program that is read.
const MAX_PROGRAM_BYTES: u64 = 1 << 30;

pub(super) async fn run(grid: &Client, format: Format, arguments: &PutProgram) -> Result<(), Failure> {
    let program = put(grid, Bytes::from(read(&arguments.file)?)).await?;
    match format {
        Format::Json => print_json(&program),
        Format::Table | Format::Quiet => print_line(&program.sha256.to_string()),
    }
}

/// Stores a program. It is sent again where the grid was there and went away, such as for a restart or another leader: to store
/// it twice is to store it once.
async fn put(grid: &Client, bytes: Bytes) -> Result<Program, Failure> {
    let (hash, mut away) = (hash_of(&bytes), Away::default());
    let mut was_there = false;
    loop {
        let error = match grid.put_program(hash, bytes.clone()).await {
            Ok(program) => return Ok(program),
            Err(error) => error,
        };
        was_there |= !matches!(&error, Error::Unreachable { source, .. } if source.is_connect());
        if !was_there || !may_pass(&error) {
            return Err(error.into());
        }
        away.begin();
        away.bear(error.into())?;
        away.pause().await;
    }
}

/// Whether the same request may be answered otherwise soon.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Answer { .. } => true,
        // No time, no room for another upload, and what stands before a coordinator that is away.
        Error::Refused { status, .. } => [408, 429, 502, 503, 504].contains(&status.as_u16()),
        Error::Start(_) | Error::NoResult { .. } => false,
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
