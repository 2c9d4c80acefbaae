//! Puts the answers to individual tasks together as `{"tasks":[…]}`, with null where there is none, in bounded memory.

use std::ops::Range;

use model::JobId;

use crate::backend::{Answers, Reads};
use crate::change::ResultBody;
use crate::error::{ComposeError, ReadError, WriteError};
use crate::objects::{Objects, ResultWriter};

pub(crate) async fn compose(objects: &Objects, reads: &dyn Reads, job: JobId) -> Result<ResultBody, ComposeError> {
    let mut writer = ResultWriter::new(objects, job);
    match write_tasks(&mut writer, reads, job).await {
        Ok(()) => Ok(writer.finish().await?),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn write_tasks(writer: &mut ResultWriter<'_>, reads: &dyn Reads, job: JobId) -> Result<(), ComposeError> {
    let record = reads.job(job).await?;
    let tasks = record.ok_or(ReadError::NoSuchTasks { job, first: 0, beyond: 0 })?.tasks;
    writer.push("{\"tasks\":[").await?;
    let mut next = 0;
    loop {
        let some = reads.answers(job, next).await?;
        if some.is_empty() {
            break;
        }
        for Answers { tasks, json } in some {
            if tasks.start < next || tasks.is_empty() {
                let detail = format!("tasks {} to {} are recorded twice", tasks.start, tasks.end);
                return Err(ReadError::Corrupt { place: format!("attempts of job {job}"), detail }.into());
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

async fn write_nulls(writer: &mut ResultWriter<'_>, tasks: Range<u64>) -> Result<(), WriteError> {
    for task in tasks {
        writer.push(if task > 0 { ",null" } else { "null" }).await?;
    }
    Ok(())
}
