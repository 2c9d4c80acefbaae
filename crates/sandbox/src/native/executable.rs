//! Checks an executable's hash and whether this machine executes it: once, and again when the file has changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::failure::{Reason, is_of_machine};
use crate::hash::ProgramHash;

/// Files whose hash is remembered.
const MOST_REMEMBERED: usize = 256;
/// The part of an ELF header that tells the processor.
const HEADER_BYTES: usize = 20;
/// The part of a script's first line that Linux reads.
const FIRST_LINE_BYTES: u64 = 256;
const ELF_64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
#[cfg(target_arch = "x86_64")]
const ELF_MACHINE: u16 = libc::EM_X86_64;
#[cfg(not(target_arch = "x86_64"))]
const ELF_MACHINE: u16 = libc::EM_AARCH64;

/// Properties by which a changed file is noticed: a process without privileges cannot set the time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_at: (i64, i64),
}

/// Hashes of the executables seen.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    hashes: Mutex<HashMap<FileState, ProgramHash>>,
}

impl Executables {
    /// Checks that the file at `path` hashes to `expected`.
    pub(crate) fn verify(&self, path: &Path, expected: ProgramHash) -> Result<(), Reason> {
        let found = self.hash(path).map_err(|error| {
            if is_of_machine(&error) {
                return Reason::sandbox("read the executable", error);
            }
            Reason::NotExecutable { message: format!("{}: {error}", path.display()) }
        })?;
        if found == expected { Ok(()) } else { Err(Reason::HashMismatch { expected, found }) }
    }

    fn hash(&self, path: &Path) -> io::Result<ProgramHash> {
        let file = File::open(path)?;
        let state = state_of(&file)?;
        if let Some(hash) = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(&state) {
            return Ok(*hash);
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        (&file).take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        check_header(&header)?;
        let hash = ProgramHash::of_reader(header.as_slice().chain(&file))?;
        // A file that changed while it was read has a later state, which is not the one remembered.
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() >= MOST_REMEMBERED {
            hashes.clear();
        }
        hashes.insert(state, hash);
        Ok(hash)
    }
}

/// Checks by the first bytes of a file that this machine executes it.
///
/// # Errors
/// The file is neither an ELF executable for this kind of processor nor a script that names its interpreter.
pub fn check_executable(start: &[u8]) -> Result<(), Reason> {
    let header = &start[..start.len().min(HEADER_BYTES)];
    check_header(header).map_err(|error| Reason::NotExecutable { message: error.to_string() })
}

/// The C library hands a file that the kernel does not execute to a shell, whatever it is.
fn check_header(header: &[u8]) -> io::Result<()> {
    if header.starts_with(b"#!") {
        return Ok(());
    }
    let machine = header.get(18..20).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    match machine {
        Some(ELF_MACHINE) if header.starts_with(ELF_64_LITTLE) => Ok(()),
        Some(_) if header.starts_with(b"\x7fELF") => {
            Err(io::Error::other("it is for another kind of processor than this machine's"))
        }
        _ => Err(io::Error::other("it is neither an ELF executable nor a script that names its interpreter")),
    }
}

/// The reason why the system does not find a file that is there when it executes it; `None` where the file is not there.
pub(crate) fn missing_interpreter(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(FIRST_LINE_BYTES).read_to_end(&mut start).ok()?;
    let Some(line) = start.strip_prefix(b"#!") else {
        let what = "its dynamic loader is not on this machine: link it statically, or for the C library here";
        return Some(what.to_owned());
    };
    let mut words = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t' | b'\n'));
    let name = words.next().map(String::from_utf8_lossy).unwrap_or_default();
    // Quoted, so that a carriage return at the end of the line is seen.
    Some(format!("its first line names the interpreter {name:?}, which is not on this machine"))
}

fn state_of(file: &File) -> io::Result<FileState> {
    let file = file.metadata()?;
    if !file.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(FileState {
        device: file.dev(),
        inode: file.ino(),
        bytes: file.size(),
        changed_at: (file.ctime(), file.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_for_another_processor_is_refused_by_its_header() {
        let this = std::fs::read("/proc/self/exe").expect("this test");
        assert_eq!(check_executable(&this), Ok(()));
        let mut other = this;
        // The field e_machine of ELF, which is EM_SPARCV9 here.
        other[18..20].copy_from_slice(&[43, 0]);
        let error = check_executable(&other).expect_err("another processor").to_string();
        assert!(error.contains("another kind of processor"), "{error}");
        assert_eq!(check_executable(b"#!/bin/sh\n"), Ok(()));
        assert!(check_executable(b"MZ").is_err() && check_executable(b"\x7fELF").is_err());
    }

    #[test]
    fn the_interpreter_of_a_script_is_shown_with_what_cannot_be_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("script");
        assert_eq!(missing_interpreter(&path), None);
        for (line, shown) in [
            ("#!/opt/python -u\n", r#""/opt/python","#),
            ("#! /bin/sh\r\n", r#""/bin/sh\r","#),
            ("#!/bin/ash", r#""/bin/ash","#),
            ("#!\n", r#""","#),
        ] {
            std::fs::write(&path, line).expect("written");
            let told = missing_interpreter(&path).expect("there");
            assert!(told.contains(&format!("the interpreter {shown}")), "{told}");
        }
    }

    #[test]
    fn a_file_that_changed_is_hashed_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("program");
        let executables = Executables::default();
        std::fs::write(&path, "#!one").expect("written");
        executables.verify(&path, ProgramHash::of(b"#!one")).expect("the same");
        executables.verify(&path, ProgramHash::of(b"#!one")).expect("remembered");
        std::fs::write(&path, "#!another").expect("written");
        let found = executables.verify(&path, ProgramHash::of(b"#!one")).expect_err("changed");
        assert_eq!(
            found,
            Reason::HashMismatch { expected: ProgramHash::of(b"#!one"), found: ProgramHash::of(b"#!another") }
        );
    }
}
