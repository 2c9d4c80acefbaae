//! `divvy program put`.

use api::client::Client;
use bytes::Bytes;
use model::ProgramHash;
use sha2::{Digest, Sha256};

use crate::arguments::{Format, PutProgram};
use crate::failure::Failure;
use crate::patience::patiently;
use crate::print::{print_json, print_line};
use crate::source::read_bytes;

pub(super) async fn run(grid: &Client, format: Format, arguments: &PutProgram) -> Result<(), Failure> {
    let bytes = Bytes::from(read_bytes(&arguments.file)?);
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
