//! Reads the outputs of a job's tasks in order, from rows and from the objects that rows refer to. Memory is bounded for outputs
//! of any length.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use model::{JobId, OutputObject, ProgramOutput};
use serde_json::value::RawValue;

use crate::backend::{Answers, Reads};
use crate::error::{ComposeError, ReadError};
use crate::objects::{Objects, ResultStream};

/// The outputs of all tasks from one on, in order, some at a time.
pub(crate) struct Outputs<'a> {
    reads: &'a dyn Reads,
    job: JobId,
    next: u64,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(reads: &'a dyn Reads, job: JobId, next: u64) -> Self {
        Self { reads, job, next }
    }

    /// The next outputs; empty after the last.
    pub(crate) async fn next(&mut self) -> Result<Vec<(u64, ProgramOutput)>, ComposeError> {
        let mut outputs = Vec::new();
        for Answers { tasks, json } in self.reads.answers(self.job, self.next).await? {
            if tasks.start < self.next || tasks.is_empty() {
                return Err(recorded_twice(self.job, &tasks).into());
            }
            if tasks.start > self.next {
                return Err(ComposeError::Combine(format!("task {} has no output", self.next)));
            }
            self.next = tasks.end;
            let answers = json.as_deref().map_or(Ok(Vec::new()), |json| answers(self.job, json))?;
            if answers.len() as u64 != tasks.end - tasks.start {
                return Err(ComposeError::Combine(format!("task {} has no output", tasks.start)));
            }
            for (task, answer) in tasks.zip(answers) {
                let output = serde_json::from_str(answer.get());
                let output = output.map_err(|_| ComposeError::Combine(format!("task {task} answered no output")))?;
                outputs.push((task, output));
            }
        }
        Ok(outputs)
    }
}

/// The answers of an attempt.
pub(crate) fn answers(job: JobId, json: &str) -> Result<Vec<&RawValue>, ReadError> {
    serde_json::from_str(json)
        .map_err(|error| ReadError::Corrupt { place: format!("attempts of job {job}"), detail: error.to_string() })
}

pub(crate) fn recorded_twice(job: JobId, tasks: &Range<u64>) -> ReadError {
    let detail = format!("tasks {} to {} are recorded twice", tasks.start, tasks.end);
    ReadError::Corrupt { place: format!("attempts of job {job}"), detail }
}

/// The bytes of one output in pieces.
#[derive(Debug)]
pub enum OutputBytes {
    /// The bytes of a row; `None` once they are read.
    Inline(Option<Bytes>),
    /// The bytes of an object.
    Object(Box<ResultStream>),
}

impl OutputBytes {
    pub(crate) async fn open(
        objects: &Objects,
        job: JobId,
        task: u64,
        output: ProgramOutput,
    ) -> Result<Self, ComposeError> {
        if let ProgramOutput::Object { object } = &output {
            return Ok(Self::Object(Box::new(objects.read_output(job, task, object).await?)));
        }
        let bytes = output.into_bytes();
        let bytes = bytes.ok_or_else(|| ComposeError::Combine(format!("task {task} answered no base64")))?;
        Ok(Self::Inline(Some(bytes.into())))
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.as_ref().map_or(0, Bytes::len) as u64,
            Self::Object(stream) => stream.bytes(),
        }
    }

    /// The next piece; `None` after the last. The last piece of an object comes only if all of it has the right hash.
    ///
    /// # Errors
    /// The output could not be read, or has another hash.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        match self {
            Self::Inline(bytes) => Ok(bytes.take().filter(|bytes| !bytes.is_empty())),
            Self::Object(stream) => stream.next().await,
        }
    }
}

/// The outputs of a job's tasks as lines, for a program that combines them.
pub struct OutputLines {
    reads: Arc<dyn Reads>,
    objects: Objects,
    job: JobId,
    /// The task after the last one that was read.
    next: u64,
    waiting: VecDeque<(u64, ProgramOutput)>,
    /// The present line, and its last byte that was given out.
    line: Option<(OutputBytes, Option<u8>)>,
}

impl std::fmt::Debug for OutputLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputLines").field("job", &self.job).field("next", &self.next).finish_non_exhaustive()
    }
}

impl OutputLines {
    pub(crate) fn new(reads: Arc<dyn Reads>, objects: Objects, job: JobId) -> Self {
        Self { reads, objects, job, next: 0, waiting: VecDeque::new(), line: None }
    }

    /// The next piece; `None` after the last. Each output ends with a line break, which is added if it has none.
    ///
    /// # Errors
    /// An output could not be read, or a task before the last one that is done has none.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ComposeError> {
        loop {
            if let Some((line, last)) = &mut self.line {
                if let Some(piece) = line.next().await? {
                    *last = piece.last().copied();
                    return Ok(Some(piece));
                }
                let is_ended = *last == Some(b'\n');
                self.line = None;
                if !is_ended {
                    return Ok(Some(Bytes::from_static(b"\n")));
                }
            }
            if self.waiting.is_empty() {
                self.waiting = Outputs::new(&*self.reads, self.job, self.next).next().await?.into();
            }
            let Some((task, output)) = self.waiting.pop_front() else { return Ok(None) };
            self.next = task + 1;
            self.line = Some((OutputBytes::open(&self.objects, self.job, task, output).await?, None));
        }
    }
}

/// Pieces of UTF-8 as a part of a JSON string, which may be cut anywhere.
pub(crate) fn escaped(piece: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(piece.len() + piece.len() / 8);
    for &byte in piece {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            0x08 => text.extend(b"\\b"),
            0x0c => text.extend(b"\\f"),
            0..0x20 => {
                text.extend(b"\\u00");
                text.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
            _ => text.push(byte),
        }
    }
    text
}

/// Base64 of pieces that belong together.
#[derive(Debug, Default)]
pub(crate) struct Base64Pieces {
    /// Less than three bytes: only whole groups of three need no padding.
    rest: Vec<u8>,
}

impl Base64Pieces {
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        let needed = (3 - self.rest.len()).min(piece.len());
        let (first, piece) = piece.split_at(if self.rest.is_empty() { 0 } else { needed });
        self.rest.extend_from_slice(first);
        let mut text = String::new();
        if self.rest.len() == 3 {
            STANDARD.encode_string(std::mem::take(&mut self.rest), &mut text);
        }
        let (whole, rest) = piece.split_at(piece.len() / 3 * 3);
        STANDARD.encode_string(whole, &mut text);
        self.rest.extend_from_slice(rest);
        text
    }

    pub(crate) fn finish(self) -> String {
        STANDARD.encode(self.rest)
    }
}

/// The object that an answer of a `program` job refers to.
pub(crate) fn object_of(answer: &RawValue) -> Option<OutputObject> {
    OutputObject::of(answer.get())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_become_the_same_json_and_base64_as_the_whole(text in "\\PC*[\\x00-\\x7f]{0,20}\\PC*", size in 1..9_usize) {
            let pieces = text.as_bytes().chunks(size);
            let json: Vec<u8> = pieces.clone().flat_map(escaped).collect();
            let quoted = serde_json::Value::String(text.clone()).to_string();
            prop_assert_eq!(&json, &quoted.as_bytes()[1..quoted.len() - 1]);
            let mut base64 = Base64Pieces::default();
            let mut encoded: String = pieces.map(|piece| base64.push(piece)).collect();
            encoded.push_str(&base64.finish());
            prop_assert_eq!(encoded, STANDARD.encode(&text));
        }
    }
}
