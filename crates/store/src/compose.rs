//! Composes a job's result from the answers to individual tasks, in bounded memory.

use std::ops::Range;

use model::{Composition, JobId, OutputObject, ProgramOutput};

use crate::backend::{Answers, Reads};
use crate::change::ResultBody;
use crate::error::{ComposeError, ReadError, WriteError};
use crate::objects::{Objects, ResultWriter};
use crate::outputs::{Base64Pieces, OutputBytes, Outputs, answers, escaped, object_of, recorded_twice};

/// The parts of a result.
#[derive(Clone, Copy)]
struct Sources<'a> {
    objects: &'a Objects,
    reads: &'a dyn Reads,
    job: JobId,
}

pub(crate) async fn compose(
    objects: &Objects,
    reads: &dyn Reads,
    job: JobId,
    composition: Composition,
) -> Result<ResultBody, ComposeError> {
    let mut writer = ResultWriter::new(objects, job);
    let sources = Sources { objects, reads, job };
    let written = match composition {
        Composition::TaskResults => sources.write_tasks(&mut writer, false).await,
        Composition::Outputs => sources.write_tasks(&mut writer, true).await,
        Composition::Sum => sources.write_sum(&mut writer).await,
        Composition::Concat => sources.write_concatenation(&mut writer).await,
        Composition::LastTask => sources.write_last(&mut writer).await,
    };
    match written {
        Ok(()) => Ok(writer.finish().await?),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn write_nulls(writer: &mut ResultWriter, tasks: Range<u64>) -> Result<(), WriteError> {
    for task in tasks {
        writer.push(if task > 0 { ",null" } else { "null" }).await?;
    }
    Ok(())
}

/// Whether an answer may refer to an object.
fn may_refer(json: &str) -> bool {
    json.contains("\"object\"")
}

impl Sources<'_> {
    async fn task_count(self) -> Result<u64, ReadError> {
        let job = self.job;
        let record = self.reads.job(job).await?;
        Ok(record.ok_or(ReadError::NoSuchTasks { job, first: 0, beyond: 0 })?.tasks)
    }

    /// Writes the list of the answers. With `are_outputs` the answers are those of programs, and a reference to an object is
    /// replaced by its content.
    async fn write_tasks(self, writer: &mut ResultWriter, are_outputs: bool) -> Result<(), ComposeError> {
        let tasks = self.task_count().await?;
        writer.push("{\"tasks\":[").await?;
        let mut next = 0;
        loop {
            let some = self.reads.answers(self.job, next).await?;
            if some.is_empty() {
                break;
            }
            for Answers { tasks, json } in some {
                if tasks.start < next || tasks.is_empty() {
                    return Err(recorded_twice(self.job, &tasks).into());
                }
                write_nulls(writer, next..tasks.start).await?;
                next = tasks.end;
                let Some(json) = json else {
                    write_nulls(writer, tasks).await?;
                    continue;
                };
                if are_outputs && may_refer(&json) {
                    self.write_outputs(writer, tasks, &json).await?;
                    continue;
                }
                match json.strip_prefix('[').and_then(|json| json.strip_suffix(']')) {
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

    /// The answers of an attempt, some of which refer to objects.
    async fn write_outputs(self, writer: &mut ResultWriter, tasks: Range<u64>, json: &str) -> Result<(), ComposeError> {
        for (task, answer) in tasks.zip(answers(self.job, json)?) {
            writer.push(if task > 0 { "," } else { "" }).await?;
            match object_of(answer) {
                Some(object) => self.write_object(writer, task, object).await?,
                None => writer.push(answer.get()).await?,
            }
        }
        Ok(())
    }

    /// The content of an object as JSON.
    async fn write_object(
        self,
        writer: &mut ResultWriter,
        task: u64,
        object: OutputObject,
    ) -> Result<(), ComposeError> {
        let mut content = self.objects.read_output(self.job, task, &object).await?;
        if object.text {
            writer.push("\"").await?;
            while let Some(piece) = content.next().await? {
                writer.push_bytes(&escaped(&piece)).await?;
            }
            return Ok(writer.push("\"").await?);
        }
        writer.push("{\"base64\":\"").await?;
        let mut base64 = Base64Pieces::default();
        while let Some(piece) = content.next().await? {
            writer.push(&base64.push(&piece)).await?;
        }
        writer.push(&base64.finish()).await?;
        Ok(writer.push("\"}").await?)
    }

    async fn write_sum(self, writer: &mut ResultWriter) -> Result<(), ComposeError> {
        let (mut outputs, mut sum) = (Outputs::new(self.reads, self.job, 0), 0_i128);
        loop {
            let some = outputs.next().await?;
            if some.is_empty() {
                break;
            }
            for (task, output) in some {
                let number = output.integer();
                let number =
                    number.map_err(|error| ComposeError::Combine(format!("the output of task {task}: {error}")))?;
                let too_large =
                    || ComposeError::Combine(format!("the sum up to task {task} does not fit into 128 bits"));
                sum = sum.checked_add(number).ok_or_else(too_large)?;
            }
        }
        Ok(writer.push(&format!("{{\"sum\":\"{sum}\"}}")).await?)
    }

    /// Writes the concatenated text as a JSON string; as base64 if one of the outputs is no text.
    async fn write_concatenation(self, writer: &mut ResultWriter) -> Result<(), ComposeError> {
        let is_text = self.is_all_text().await?;
        writer.push(if is_text { "{\"output\":\"" } else { "{\"output\":{\"base64\":\"" }).await?;
        let (mut outputs, mut base64) = (Outputs::new(self.reads, self.job, 0), Base64Pieces::default());
        loop {
            let some = outputs.next().await?;
            if some.is_empty() {
                break;
            }
            for (task, output) in some {
                let mut content = OutputBytes::open(self.objects, self.job, task, output).await?;
                while let Some(piece) = content.next().await? {
                    if is_text {
                        writer.push_bytes(&escaped(&piece)).await?;
                    } else {
                        writer.push(&base64.push(&piece)).await?;
                    }
                }
            }
        }
        writer.push(&base64.finish()).await?;
        Ok(writer.push(if is_text { "\"}" } else { "\"}}" }).await?)
    }

    async fn is_all_text(self) -> Result<bool, ComposeError> {
        let mut outputs = Outputs::new(self.reads, self.job, 0);
        loop {
            let some = outputs.next().await?;
            if some.is_empty() {
                return Ok(true);
            }
            let is_text = |output: &ProgramOutput| match output {
                ProgramOutput::Text(_) => true,
                ProgramOutput::Binary { .. } => false,
                ProgramOutput::Object { object } => object.text,
            };
            if !some.iter().all(|(_, output)| is_text(output)) {
                return Ok(false);
            }
        }
    }

    async fn write_last(self, writer: &mut ResultWriter) -> Result<(), ComposeError> {
        let last = self.task_count().await?.saturating_sub(1);
        let output = Outputs::new(self.reads, self.job, last).next().await?.pop();
        let (task, output) = output.ok_or_else(|| ComposeError::Combine("the last task has no output".to_owned()))?;
        writer.push("{\"output\":").await?;
        match output {
            ProgramOutput::Object { object } => self.write_object(writer, task, object).await?,
            output @ (ProgramOutput::Text(_) | ProgramOutput::Binary { .. }) => {
                let json = serde_json::to_string(&output).map_err(|error| ComposeError::Combine(error.to_string()))?;
                writer.push(&json).await?;
            }
        }
        Ok(writer.push("}").await?)
    }
}
