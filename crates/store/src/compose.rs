//! Puts a job's result together from the answers to individual tasks, in bounded memory.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Composition, JobId, ProgramOutput};
use serde_json::value::RawValue;

use crate::backend::{Answers, Reads};
use crate::change::ResultBody;
use crate::error::{ComposeError, ReadError, WriteError};
use crate::objects::{Objects, ResultWriter};

pub(crate) async fn compose(
    objects: &Objects,
    reads: &dyn Reads,
    job: JobId,
    composition: Composition,
) -> Result<ResultBody, ComposeError> {
    let mut writer = ResultWriter::new(objects, job);
    let written = match composition {
        Composition::TaskResults => write_tasks(&mut writer, reads, job).await,
        Composition::Sum => write_sum(&mut writer, reads, job).await,
        Composition::Concat => write_concatenation(&mut writer, reads, job).await,
        Composition::LastTask => write_last(&mut writer, reads, job).await,
    };
    match written {
        Ok(()) => Ok(writer.finish().await?),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn task_count(reads: &dyn Reads, job: JobId) -> Result<u64, ReadError> {
    let record = reads.job(job).await?;
    Ok(record.ok_or(ReadError::NoSuchTasks { job, first: 0, beyond: 0 })?.tasks)
}

async fn write_tasks(writer: &mut ResultWriter<'_>, reads: &dyn Reads, job: JobId) -> Result<(), ComposeError> {
    let tasks = task_count(reads, job).await?;
    writer.push("{\"tasks\":[").await?;
    let mut next = 0;
    loop {
        let some = reads.answers(job, next).await?;
        if some.is_empty() {
            break;
        }
        for Answers { tasks, json } in some {
            if tasks.start < next || tasks.is_empty() {
                return Err(recorded_twice(job, &tasks).into());
            }
            write_nulls(writer, next..tasks.start).await?;
            next = tasks.end;
            match json.as_deref().and_then(|json| json.strip_prefix('[')?.strip_suffix(']')) {
                Some(json) => {
                    writer.push(if tasks.start > 0 { "," } else { "" }).await?;
                    writer.push(json).await?;
                }
                None => write_nulls(writer, tasks).await?,
            }
        }
    }
    write_nulls(writer, next..tasks).await?;
    Ok(writer.push("]}").await?)
}

fn recorded_twice(job: JobId, tasks: &Range<u64>) -> ReadError {
    let detail = format!("tasks {} to {} are recorded twice", tasks.start, tasks.end);
    ReadError::Corrupt { place: format!("attempts of job {job}"), detail }
}

async fn write_nulls(writer: &mut ResultWriter<'_>, tasks: Range<u64>) -> Result<(), WriteError> {
    for task in tasks {
        writer.push(if task > 0 { ",null" } else { "null" }).await?;
    }
    Ok(())
}

/// The answers of all tasks from the first on, in order, some at a time.
pub(crate) struct Outputs<'a> {
    reads: &'a dyn Reads,
    job: JobId,
    next: u64,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(reads: &'a dyn Reads, job: JobId, next: u64) -> Self {
        Self { reads, job, next }
    }

    /// The next ones; empty after the last.
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
            let answers: Vec<&RawValue> =
                json.as_deref().map_or(Ok(Vec::new()), serde_json::from_str).map_err(|error| {
                    let place = format!("attempts of job {}", self.job);
                    ReadError::Corrupt { place, detail: error.to_string() }
                })?;
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

async fn write_sum(writer: &mut ResultWriter<'_>, reads: &dyn Reads, job: JobId) -> Result<(), ComposeError> {
    let (mut outputs, mut sum) = (Outputs::new(reads, job, 0), 0_i128);
    loop {
        let some = outputs.next().await?;
        if some.is_empty() {
            break;
        }
        for (task, output) in some {
            let number = output.integer();
            let number =
                number.map_err(|error| ComposeError::Combine(format!("the output of task {task}: {error}")))?;
            let too_large = || ComposeError::Combine(format!("the sum up to task {task} does not fit into 128 bits"));
            sum = sum.checked_add(number).ok_or_else(too_large)?;
        }
    }
    Ok(writer.push(&format!("{{\"sum\":\"{sum}\"}}")).await?)
}

/// Text as a JSON string; as base64 where one of the outputs is no text.
async fn write_concatenation(writer: &mut ResultWriter<'_>, reads: &dyn Reads, job: JobId) -> Result<(), ComposeError> {
    if is_all_text(reads, job).await? {
        writer.push("{\"output\":\"").await?;
        let mut outputs = Outputs::new(reads, job, 0);
        loop {
            let some = outputs.next().await?;
            if some.is_empty() {
                return Ok(writer.push("\"}").await?);
            }
            for (_, output) in some {
                let ProgramOutput::Text(text) = output else { continue };
                let quoted = serde_json::Value::String(text).to_string();
                writer.push(&quoted[1..quoted.len() - 1]).await?;
            }
        }
    }
    writer.push("{\"output\":{\"base64\":\"").await?;
    let (mut outputs, mut rest) = (Outputs::new(reads, job, 0), Vec::new());
    loop {
        let some = outputs.next().await?;
        if some.is_empty() {
            writer.push(&STANDARD.encode(&rest)).await?;
            return Ok(writer.push("\"}}").await?);
        }
        for (task, output) in some {
            let bytes = output.into_bytes();
            rest.extend(bytes.ok_or_else(|| ComposeError::Combine(format!("task {task} answered no base64")))?);
            // Only whole groups of three bytes need no padding.
            let later = rest.split_off(rest.len() / 3 * 3);
            writer.push(&STANDARD.encode(&rest)).await?;
            rest = later;
        }
    }
}

async fn is_all_text(reads: &dyn Reads, job: JobId) -> Result<bool, ComposeError> {
    let mut outputs = Outputs::new(reads, job, 0);
    loop {
        let some = outputs.next().await?;
        if some.is_empty() {
            return Ok(true);
        }
        if some.iter().any(|(_, output)| matches!(output, ProgramOutput::Binary { .. })) {
            return Ok(false);
        }
    }
}

async fn write_last(writer: &mut ResultWriter<'_>, reads: &dyn Reads, job: JobId) -> Result<(), ComposeError> {
    let last = task_count(reads, job).await?.saturating_sub(1);
    let output = Outputs::new(reads, job, last).next().await?.pop();
    let (_, output) = output.ok_or_else(|| ComposeError::Combine("the last task has no output".to_owned()))?;
    let json = serde_json::to_string(&output).map_err(|error| ComposeError::Combine(error.to_string()))?;
    Ok(writer.push(&format!("{{\"output\":{json}}}")).await?)
}
