//! Programs that run as tasks: their names in jobs, and the labels of workers that can run them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{InvalidJob, JobKind};

/// The longest name of a program.
const MAX_NAME_BYTES: usize = 63;

/// The value of every label that stands for an ability.
pub const ABLE: &str = "yes";

/// The prefix of the labels of workers that bring programs.
const NAMED_LABEL: &str = "divvy.program.";

/// The SHA-256 of an uploaded program's bytes, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProgramHash(pub [u8; 32]);

/// The name of a program that workers bring: 1 to 63 of a-z, 0-9, '.', '-' and '_', beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProgramName(String);

/// A job's reference to its program: 64 hexadecimal digits are an uploaded program, anything else is a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProgramRef {
    /// An uploaded program.
    Uploaded(ProgramHash),
    /// A program that workers bring.
    Named(ProgramName),
}

/// Kind of an uploaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgramKind {
    /// A WebAssembly module or component.
    Wasm,
    /// An executable: ELF, or a script with `#!`.
    Native,
}

/// Composition of a job's result from those of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Composition {
    /// The list of the tasks' results: `{"tasks": […]}`.
    TaskResults,
    /// A list of results that are outputs of programs, some of which may be objects.
    Outputs,
    /// The exact sum of the tasks' results, which are decimal integers: `{"sum": "…"}`.
    Sum,
    /// The tasks' results one after another: `{"output": …}`.
    Concat,
    /// The result of the last task: `{"output": …}`.
    LastTask,
}

impl ProgramHash {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl FromStr for ProgramHash {
    type Err = InvalidJob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| InvalidJob::new("sha256", "must be a SHA-256: 64 hexadecimal digits"))
    }
}

impl TryFrom<String> for ProgramHash {
    type Error = InvalidJob;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProgramHash> for String {
    fn from(hash: ProgramHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for ProgramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProgramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ProgramName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of workers that bring the program.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{NAMED_LABEL}{}", self.0)
    }
}

impl TryFrom<String> for ProgramName {
    type Error = InvalidJob;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        let first = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && name.len() <= MAX_NAME_BYTES && name.bytes().all(allowed) {
            return Ok(Self(name));
        }
        let message = format!(
            "must be the SHA-256 of an uploaded program (64 hexadecimal digits) or a name of 1 to {MAX_NAME_BYTES} of \
             a-z, 0-9, '.', '-' and '_'"
        );
        Err(InvalidJob::new("program", message))
    }
}

impl From<ProgramName> for String {
    fn from(name: ProgramName) -> Self {
        name.0
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ProgramRef {
    type Err = InvalidJob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match ProgramHash::parse(text) {
            Some(hash) => Ok(Self::Uploaded(hash)),
            None => text.to_owned().try_into().map(Self::Named),
        }
    }
}

impl TryFrom<String> for ProgramRef {
    type Error = InvalidJob;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProgramRef> for String {
    fn from(program: ProgramRef) -> Self {
        program.to_string()
    }
}

impl fmt::Display for ProgramRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uploaded(hash) => hash.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl ProgramKind {
    /// Number of bytes that [`Self::of`] reads.
    pub const MAGIC_BYTES: usize = 4;

    /// The kind of a program by its first bytes; `None` if no worker runs such a program.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        if start.starts_with(b"\0asm") {
            Some(Self::Wasm)
        } else if start.starts_with(b"\x7fELF") || start.starts_with(b"#!") {
            Some(Self::Native)
        } else {
            None
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Native => "native",
        }
    }

    /// The label of workers that run programs of this kind.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Wasm => "divvy.wasm",
            Self::Native => "divvy.native",
        }
    }
}

/// Describes the programs that workers with this label can run; `None` for a label that is not about programs.
#[must_use]
pub fn program_ability(label: &str) -> Option<String> {
    if let Some(name) = label.strip_prefix(NAMED_LABEL) {
        return Some(format!("the program {name}"));
    }
    [(ProgramKind::Wasm, "uploaded WebAssembly"), (ProgramKind::Native, "uploaded executables (DIVVY_ALLOW_NATIVE=1)")]
        .into_iter()
        .find(|(kind, _)| kind.label() == label)
        .map(|(_, ability)| ability.to_owned())
}

impl FromStr for ProgramKind {
    type Err = InvalidJob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Wasm, Self::Native]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| InvalidJob::new("kind", "must be wasm or native"))
    }
}

impl fmt::Display for ProgramKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The part of a job's parameters that names programs.
#[derive(Deserialize)]
struct Named {
    program: ProgramRef,
    #[serde(default)]
    combine: Combine,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Combine {
    Program {
        program: ProgramRef,
    },
    Word(serde::de::IgnoredAny),
    #[default]
    Nothing,
}

/// The uploaded programs that a job of this kind needs, by its stored parameters. Stores keep a program while a job that is not
/// over needs it.
#[must_use]
pub fn uploaded_programs(kind: JobKind, params: &str) -> Vec<ProgramHash> {
    if kind != JobKind::PROGRAM {
        return Vec::new();
    }
    // A version that cannot read the parameters does not run the job either.
    let Ok(Named { program, combine }) = serde_json::from_str(params) else { return Vec::new() };
    let fold = match combine {
        Combine::Program { program } => Some(program),
        Combine::Word(_) | Combine::Nothing => None,
    };
    let hash = |program| match program {
        ProgramRef::Uploaded(hash) => Some(hash),
        ProgramRef::Named(_) => None,
    };
    [program].into_iter().chain(fold).filter_map(hash).collect()
}

/// Whether a job of the kind `program` with these parameters needs the program: also if another version has written the
/// parameters, and this version cannot read them.
#[must_use]
pub fn needs_program(params: &str, hash: ProgramHash) -> bool {
    if serde_json::from_str::<Named>(params).is_ok() {
        return uploaded_programs(JobKind::PROGRAM, params).contains(&hash);
    }
    params.to_ascii_lowercase().contains(&hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_hash_or_a_name() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let ProgramRef::Uploaded(hash) = abc.to_uppercase().parse().expect("a hash") else { panic!("no hash") };
        assert_eq!(hash.to_string(), abc);
        let named: ProgramRef = "render-2".parse().expect("a name");
        assert_eq!(named.to_string(), "render-2");
        for wrong in ["", "-x", ".x", "Render", "a b", "ü", &"x".repeat(64)] {
            assert!(wrong.parse::<ProgramRef>().is_err(), "{wrong}");
        }
        assert!(abc[1..].parse::<ProgramHash>().is_err() && format!("+{}", &abc[1..]).parse::<ProgramHash>().is_err());
    }

    #[test]
    fn the_first_bytes_tell_what_a_program_is() {
        assert_eq!(ProgramKind::of(b"\0asm\x01\0\0\0"), Some(ProgramKind::Wasm));
        assert_eq!(ProgramKind::of(b"\x7fELF"), Some(ProgramKind::Native));
        assert_eq!(ProgramKind::of(b"#!/bin/sh\n"), Some(ProgramKind::Native));
        assert_eq!(ProgramKind::of(b"MZ"), None);
        assert_eq!(ProgramKind::of(b""), None);
    }
}
