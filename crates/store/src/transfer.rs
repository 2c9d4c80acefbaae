//! Moves all data from one store to another, table by table, as texts: each store converts its columns to texts and back in its
//! own SQL.

use std::collections::HashMap;

use model::{JobId, JobKind, OutputObject, ProgramHash};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Type of a column, and the meaning of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A number in decimal.
    Integer,
    /// The text itself.
    Text,
    /// Hexadecimal digits.
    Bytes,
    /// A UUID, with or without dashes.
    Uuid,
    /// 0 or 1.
    Boolean,
}

/// A table that every store has under this name, with these columns.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, ColumnKind)],
}

/// A row: a text for each column, `None` for null.
pub type Row = Vec<Option<String>>;

/// A store's state beside its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The epoch of the store's last owner, as workers remember it.
    pub epoch: u64,
    /// The number of the newest event, which stays when the event is gone.
    pub latest_event: u64,
    /// The store's id, which is part of the names of its objects.
    pub store: Uuid,
}

/// The reason why nothing was moved: the target is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransferError(pub String);

impl TransferError {
    /// The error of a store's operation, which `what` names.
    pub fn of(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// A store to be read, which no other process uses.
pub trait Source {
    /// The names of the tables that hold data, with those that are not in [`TABLES`].
    ///
    /// # Errors
    /// The names cannot be read.
    fn tables(&mut self) -> Result<Vec<String>, TransferError>;

    /// The state beside the tables.
    ///
    /// # Errors
    /// The state cannot be read.
    fn marks(&mut self) -> Result<Marks, TransferError>;

    /// Passes on the rows of a table, in parts.
    ///
    /// # Errors
    /// The table cannot be read, or the rows are not accepted.
    fn read(
        &mut self,
        table: &Table,
        take: &mut dyn FnMut(&[Row]) -> Result<(), TransferError>,
    ) -> Result<(), TransferError>;
}

/// An empty store, which no other process uses. Nothing is stored before [`Target::finish`].
pub trait Target {
    /// Writes rows of a table.
    ///
    /// # Errors
    /// The rows cannot be written.
    fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), TransferError>;

    /// Number of rows of a table.
    ///
    /// # Errors
    /// The rows cannot be counted.
    fn count(&mut self, table: &Table) -> Result<u64, TransferError>;

    /// Makes the written rows durable.
    ///
    /// # Errors
    /// No row is stored then, or all rows if the answer to the last step is lost, as the error says.
    fn finish(&mut self, marks: &Marks) -> Result<(), TransferError>;
}

/// Moves all rows and marks. Returns the number of rows of each table.
///
/// # Errors
/// Nothing has been moved.
pub fn transfer(source: &mut dyn Source, target: &mut dyn Target) -> Result<Vec<(&'static str, u64)>, TransferError> {
    for name in source.tables()? {
        if !TABLES.iter().chain(&LEFT_BEHIND).any(|table| table.name == name) {
            return Err(TransferError(format!("the table {name} is not known here: use the newest program")));
        }
    }
    let marks = source.marks()?;
    let mut moved = Vec::new();
    for table in &TABLES {
        let mut count = 0;
        source.read(table, &mut |rows| {
            count += rows.len() as u64;
            target.write(table, rows)
        })?;
        let found = target.count(table)?;
        if found != count {
            return Err(TransferError(format!("{} has {found} rows after {count} were moved", table.name)));
        }
        moved.push((table.name, count));
    }
    target.finish(&marks)?;
    Ok(moved)
}

/// The objects of a store's results.
///
/// # Errors
/// The names cannot be read.
pub fn objects(source: &mut dyn Source) -> Result<Vec<String>, TransferError> {
    const RESULTS: Table = Table { name: "results", columns: &[("object", Text)] };
    let mut names = Vec::new();
    source.read(&RESULTS, &mut |rows| {
        names.extend(rows.iter().flatten().flatten().cloned());
        Ok(())
    })?;
    Ok(names)
}

/// An output of a program's task that is an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedOutput {
    /// The job.
    pub job: JobId,
    /// The task.
    pub task: u64,
    /// The object.
    pub object: OutputObject,
}

/// The outputs that are objects and to which results of tasks refer. Rows that cannot be read are passed over.
///
/// # Errors
/// The rows cannot be read at all.
pub fn outputs(source: &mut dyn Source) -> Result<Vec<NamedOutput>, TransferError> {
    const ATTEMPTS: Table =
        Table { name: "attempts", columns: &[("job", Integer), ("first", Integer), ("results", Text)] };
    const JOBS: Table = Table { name: "jobs", columns: &[("key", Integer), ("id", Id), ("kind", Text)] };
    let mut found: HashMap<String, Vec<(u64, OutputObject)>> = HashMap::new();
    source.read(&ATTEMPTS, &mut |rows| {
        for row in rows {
            if let [Some(key), Some(first), Some(results)] = row.as_slice()
                && results.contains("\"object\"")
                && let Ok(first) = first.parse::<u64>()
                && let Ok(answers) = serde_json::from_str::<Vec<&RawValue>>(results)
            {
                let objects =
                    (first..).zip(answers).filter_map(|(task, answer)| Some((task, OutputObject::of(answer.get())?)));
                found.entry(key.clone()).or_default().extend(objects);
            }
        }
        Ok(())
    })?;
    let mut named = Vec::new();
    if found.is_empty() {
        return Ok(named);
    }
    source.read(&JOBS, &mut |rows| {
        for row in rows {
            if let [Some(key), Some(id), Some(kind)] = row.as_slice()
                && kind == JobKind::PROGRAM.as_str()
                && let Some(objects) = found.remove(key)
            {
                let job = JobId(Uuid::parse_str(id).map_err(|error| TransferError::of("the id of a job", error))?);
                named.extend(objects.into_iter().map(|(task, object)| NamedOutput { job, task, object }));
            }
        }
        Ok(())
    })?;
    Ok(named)
}

/// The programs of a store, whose bytes are objects.
///
/// # Errors
/// The programs cannot be read.
pub fn programs(source: &mut dyn Source) -> Result<Vec<ProgramHash>, TransferError> {
    const PROGRAMS: Table = Table { name: "programs", columns: &[("sha256", Bytes)] };
    let mut hashes = Vec::new();
    source.read(&PROGRAMS, &mut |rows| {
        for digits in rows.iter().flatten().flatten() {
            hashes.push(digits.to_lowercase().parse().map_err(|error| TransferError::of("a program", error))?);
        }
        Ok(())
    })?;
    Ok(hashes)
}

use ColumnKind::{Boolean, Bytes, Integer, Text, Uuid as Id};

/// Columns of [`TABLES`]' statistics: sums.
macro_rules! integers {
    ($($name:literal),+) => { &[("grain", Text), ("start", Integer), ("kind", Text), $(($name, Integer)),+] };
}

/// The tables.
pub const TABLES: [Table; 17] = [
    Table {
        name: "jobs",
        columns: &[
            ("key", Integer),
            ("id", Id),
            ("kind", Text),
            ("work", Text),
            ("params", Text),
            ("options", Text),
            ("fingerprint", Bytes),
            ("idempotency_key", Text),
            ("output", Text),
            ("state", Text),
            ("tasks", Integer),
            ("tasks_done", Integer),
            ("tasks_failed", Integer),
            ("value", Text),
            ("bytes", Integer),
            ("attempts", Integer),
            ("submitted_at", Integer),
            ("started_at", Integer),
            ("finished_at", Integer),
            ("retried_at", Integer),
            ("error", Text),
            ("task", Text),
            ("uncounted", Text),
            ("verified", Text),
        ],
    },
    Table {
        name: "tags",
        columns: &[("job", Integer), ("name", Text), ("value", Text), ("submitted_at", Integer), ("id", Id)],
    },
    Table {
        name: "spans",
        columns: &[("job", Integer), ("what", Integer), ("first", Integer), ("beyond", Integer), ("failures", Integer)],
    },
    Table { name: "payloads", columns: &[("job", Integer), ("first", Integer), ("beyond", Integer), ("list", Text)] },
    Table {
        name: "attempts",
        columns: &[
            ("id", Integer),
            ("job", Integer),
            ("first", Integer),
            ("beyond", Integer),
            ("attempt", Id),
            ("worker", Text),
            ("allocated_at", Integer),
            ("running_at", Integer),
            ("completed_at", Integer),
            ("results", Text),
            ("error_at", Integer),
            ("error", Text),
            ("failures", Integer),
            ("given_up", Boolean),
            ("omitted", Integer),
        ],
    },
    Table {
        name: "events",
        columns: &[
            ("seq", Integer),
            ("job", Integer),
            ("kind", Text),
            ("at", Integer),
            ("tasks_done", Integer),
            ("tasks_total", Integer),
            ("error", Text),
            ("counts", Text),
            ("source", Text),
        ],
    },
    Table {
        name: "results",
        columns: &[("job", Integer), ("json", Text), ("object", Text), ("bytes", Integer), ("sha256", Bytes)],
    },
    Table { name: "swept", columns: &[("job", Integer), ("id", Id)] },
    Table { name: "dropped_objects", columns: &[("object", Text)] },
    Table {
        name: "statistics",
        columns: integers![
            "jobs_submitted",
            "jobs_started",
            "jobs_succeeded",
            "jobs_failed",
            "jobs_canceled",
            "jobs_retried",
            "tasks_submitted",
            "tasks_started",
            "tasks_succeeded",
            "tasks_failed",
            "tasks_canceled",
            "tasks_retried",
            "task_starts",
            "attempts",
            "attempts_failed",
            "jobs_pending",
            "tasks_pending",
            "waiting_us",
            "running_us",
            "computing_us"
        ],
    },
    Table {
        name: "statistics_durations",
        columns: &[
            ("grain", Text),
            ("start", Integer),
            ("kind", Text),
            ("what", Text),
            ("up_to_us", Integer),
            ("count", Integer),
        ],
    },
    Table {
        name: "statistics_tasks",
        columns: &[("grain", Text), ("start", Integer), ("kind", Text), ("task", Text), ("starts", Integer)],
    },
    Table {
        name: "programs",
        columns: &[
            ("sha256", Bytes),
            ("bytes", Integer),
            ("kind", Text),
            ("uploaded_at", Integer),
            ("uploaded_by", Text),
        ],
    },
    Table {
        name: "logs",
        columns: &[
            ("job", Integer),
            ("task", Integer),
            ("attempt", Id),
            ("worker", Text),
            ("ended_at", Integer),
            ("omitted", Integer),
            ("text", Text),
        ],
    },
    Table { name: "positions", columns: &[("stream", Text), ("next", Integer), ("mark", Integer)] },
    Table { name: "drains", columns: &[("worker", Text), ("boot", Id), ("at", Integer)] },
    Table { name: "statistics_pending", columns: &[("kind", Text), ("jobs", Integer), ("tasks", Integer)] },
];

/// Tables whose content is in the [`Marks`], or belongs to a running coordinator.
pub const LEFT_BEHIND: [Table; 7] = [
    Table { name: "fence", columns: &[] },
    Table { name: "lease", columns: &[] },
    Table { name: "lease_duration", columns: &[] },
    Table { name: "counter", columns: &[] },
    Table { name: "members", columns: &[] },
    Table { name: "finished", columns: &[] },
    Table { name: "schema_version", columns: &[] },
];
