//! Files that the user names; `-` is stdin.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

use crate::failure::Failure;

/// The longest file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// A file in a message.
pub(crate) fn named(path: &Path) -> Cow<'_, str> {
    if is_stdin(path) { Cow::Borrowed("stdin") } else { path.to_string_lossy() }
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let open = || -> std::io::Result<Box<dyn Read>> {
        Ok(if is_stdin(path) { Box::new(stdin()) } else { Box::new(File::open(path)?) })
    };
    let read = open().and_then(|source| source.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    let length = read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", named(path))))?;
    if length as u64 > MAX_BYTES {
        return Err(Failure::Usage(format!("{} is longer than {MAX_BYTES} bytes", named(path))));
    }
    Ok(bytes)
}

pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(read_bytes(path)?);
    let text = text.map_err(|_| Failure::Usage(format!("cannot read {}: it is not UTF-8", named(path))))?;
    // Editors on Windows begin a file with a byte order mark, which JSON does not have.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_no_byte_order_mark_and_other_bytes_are_no_text() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("write a file");
            read_text(&file)
        };
        assert_eq!(read(b"\xef\xbb\xbf[1]\n").expect("text"), "[1]\n");
        let Err(Failure::Usage(message)) = read(b"\xff") else { panic!("it is no text") };
        assert_eq!(message, format!("cannot read {}: it is not UTF-8", file.display()));
    }
}
