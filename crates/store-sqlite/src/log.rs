//! Reads SQLite's write-ahead log without SQLite and so without a change to it, and cuts off what no commit has: see "WAL File
//! Format" in SQLite's "Database File Format".

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// The commits of a log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Pages of the database after the last commit.
    pub(crate) pages: u32,
    /// Pages in the log.
    pub(crate) holds: HashSet<u32>,
}

pub(crate) fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Offset of the end of so many frames.
pub(crate) fn end(frames: u64, page_size: u64) -> u64 {
    HEADER_BYTES as u64 + frames * (FRAME_HEADER_BYTES as u64 + page_size)
}

/// The log of an open database. SQLite uses the same file until the last connection is closed, so that this is the database's own
/// log even if another file takes its place in the directory. SQLite locks the other two files of a database, never the log: closing
/// this one ends no lock.
#[derive(Debug)]
pub(crate) struct LogFile(File);

impl LogFile {
    /// The log of a database that this process has open.
    pub(crate) fn of(database: &Path) -> io::Result<Self> {
        OpenOptions::new().write(true).open(path_of(database)).map(Self)
    }

    pub(crate) fn length(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Cuts the log off behind its last commit, as SQLite itself does behind the first commit of a log with a `journal_size_limit`,
    /// under the same lock.
    ///
    /// The caller holds the write lock, and `end` is the end of the frames that the index of the log counts. Then nothing needs
    /// what is cut off:
    /// - Another writer, the repair of the index, and a checkpoint that begins the log anew wait for the lock.
    /// - A reader, however old its state, and a checkpoint that copies beside it use frames that the index counts.
    /// - The next commit overwrites what is behind these frames; no connection remembers the length of the file or has it mapped.
    /// - The repair after a crash, before or after the cut, ends behind the last commit. Before the cut it would also bring back a
    ///   batch whose frames were all written and whose `fsync` failed.
    /// - A copy of the files that is made meanwhile has these frames or has them not, as after a crash.
    pub(crate) fn cut(&self, end: u64) -> io::Result<()> {
        self.0.set_len(end)
    }
}

/// The commits of the log; `None` if there is no log, or no commit in it.
pub(crate) fn read(path: &Path, page_size: u64) -> io::Result<Option<Log>> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let magic = number(&header, 0);
    let mut sum = Sum { is_big_endian: magic & 1 == 1, words: (0, 0) };
    sum.add(&header[..24]);
    if magic & !1 != MAGIC || u64::from(number(&header, 8)) != page_size || !sum.is_at(&header, 24) {
        return Ok(None);
    }
    let (mut log, mut uncommitted) = (Log::default(), Vec::new());
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_size as usize];
    while fill(&mut file, &mut frame)? {
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER_BYTES..]);
        if frame[8..16] != header[16..24] || !sum.is_at(&frame, 16) {
            break;
        }
        uncommitted.push(number(&frame, 0));
        let pages_after_commit = number(&frame, 4);
        if pages_after_commit > 0 {
            log.pages = pages_after_commit;
            log.holds.extend(uncommitted.drain(..));
        }
    }
    Ok((log.pages > 0).then_some(log))
}

/// Fills the buffer; false if the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The running checksum over header and frames.
struct Sum {
    is_big_endian: bool,
    words: (u32, u32),
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |at: usize| {
            let word = number(bytes, at);
            if self.is_big_endian { word } else { word.swap_bytes() }
        };
        let (mut first, mut second) = self.words;
        for at in (0..bytes.len()).step_by(8) {
            first = first.wrapping_add(word(at)).wrapping_add(second);
            second = second.wrapping_add(word(at + 4)).wrapping_add(first);
        }
        self.words = (first, second);
    }

    fn is_at(&self, bytes: &[u8], at: usize) -> bool {
        (number(bytes, at), number(bytes, at + 4)) == self.words
    }
}
