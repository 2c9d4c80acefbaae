//! The types that every crate shares: ids, ranges of numbers, descriptions of jobs, their states and events. Values only: no
//! I/O, no clock, no randomness, no HTTP and no database.

mod algorithm;
mod bounds;
mod counts;
pub mod decimal;
mod division;
mod durations;
mod event;
mod grain;
mod ids;
mod invalid;
mod kind;
mod labels;
mod named_fields;
mod options;
mod payloads;
mod plain_words;
mod priority;
mod program;
mod program_output;
mod range;
mod requirements;
mod share;
mod state;
mod trace;
mod whole_number;

pub use algorithm::Algorithm;
pub use bounds::read_whole;
pub use counts::Counts;
pub use division::{MAX_TASKS, OnExhausted, Order};
pub use durations::{BEYOND_US, BOUNDS_US, Durations};
pub use event::{EventKind, EventSource, JobEvent};
pub use grain::Grain;
pub use ids::{AttemptId, BootId, InvalidWorkerId, JobId, WorkerId};
pub use invalid::InvalidJob;
pub use kind::JobKind;
pub use labels::{Labels, MAX_WORD_BYTES, check_tags, check_words, distinct, read_pairs, read_words, split_word};
pub use named_fields::NamedFields;
pub use options::{DEFAULT_MAX_ATTEMPTS, JobOptions, Timeout};
pub use payloads::Payloads;
pub use plain_words::{counted, json_cause, json_error, json_error_at, json_place, parse_error, predicate, toml_error};
pub use priority::Priority;
pub use program::{
    ABLE, Composition, ProgramHash, ProgramKind, ProgramName, ProgramRef, needs_program, program_ability,
    uploaded_programs,
};
pub use program_output::{INLINE_OUTPUT_BYTES, OutputObject, ProgramOutput, TextCheck};
pub use range::{DEFAULT_CHUNK_SIZE, InvalidRange, NumberRange, Split};
pub use requirements::{Affinity, Requirements, Resources, SIMULATION_LABEL};
pub use share::{InvalidShare, Share};
pub use state::{JobState, TaskCounts, TaskState};
pub use trace::TraceContext;
pub use whole_number::{digits, whole_number};
