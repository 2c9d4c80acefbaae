//! A program's stdout: in memory while it is short, in a file beyond that, up to its limit.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// The file of a long stdout.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The directory of its file, which has no name there and is gone with its last descriptor.
    pub directory: PathBuf,
    /// The length in bytes above which stdout goes to the file.
    pub above: u64,
}

#[derive(Debug)]
pub(crate) struct Output {
    limit: u64,
    spool: Option<Spool>,
    bytes: u64,
    memory: Vec<u8>,
    file: Option<File>,
    failure: Option<io::Error>,
}

impl Output {
    pub(crate) fn new(limit: u64, spool: Option<Spool>) -> Self {
        Self { limit, spool, bytes: 0, memory: Vec::new(), file: None, failure: None }
    }

    /// Takes a chunk. False where it is above the limit or cannot be kept: the program is to be ended.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> bool {
        let bytes = self.bytes + chunk.len() as u64;
        if bytes > self.limit {
            return false;
        }
        self.bytes = bytes;
        match self.keep(chunk) {
            Ok(()) => true,
            Err(error) => {
                self.failure = Some(error);
                false
            }
        }
    }

    fn keep(&mut self, chunk: &[u8]) -> io::Result<()> {
        let file = match (&mut self.file, &self.spool) {
            (Some(file), _) => file,
            (none, Some(spool)) if self.bytes > spool.above => {
                let file = none.insert(tempfile::tempfile_in(&spool.directory)?);
                file.write_all(&std::mem::take(&mut self.memory))?;
                file
            }
            (None, _) => {
                self.memory.extend_from_slice(chunk);
                return Ok(());
            }
        };
        file.write_all(chunk)
    }

    /// The error of a chunk that could not be kept, if there was one.
    pub(crate) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// The bytes in memory, and the file of a longer output.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Option<File>) {
        (self.memory, self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn a_long_output_is_in_a_file_without_a_name_and_a_short_one_in_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool { directory: directory.path().to_owned(), above: 5 };
        let mut output = Output::new(8, Some(spool.clone()));
        assert!(output.push(b"abc") && output.push(b"de"));
        let (memory, file) = output.into_parts();
        assert_eq!((memory.as_slice(), file.is_none()), (&b"abcde"[..], true));

        let mut output = Output::new(8, Some(spool));
        assert!(output.push(b"abc") && output.push(b"def") && output.push(b"gh"));
        assert!(!output.push(b"i") && output.failure().is_none());
        let (memory, file) = output.into_parts();
        let (mut file, mut text) = (file.expect("a file"), String::new());
        file.rewind().expect("a file");
        file.read_to_string(&mut text).expect("text");
        assert_eq!((memory.as_slice(), text.as_str()), (&b""[..], "abcdefgh"));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn an_output_that_cannot_be_kept_says_why() {
        let spool = Spool { directory: PathBuf::from("/nowhere"), above: 1 };
        let mut output = Output::new(8, Some(spool));
        assert!(output.push(b"a") && !output.push(b"b"));
        assert!(output.failure().is_some());
    }
}
