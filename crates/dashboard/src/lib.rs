//! The dashboard's pages, as HTML from what the coordinator knows: pure functions from views of the API to markup, one
//! style sheet and some small scripts. Every page works without the scripts; with them it follows the grid live.

mod again;
mod assets;
mod attention;
mod bulk;
mod chart;
mod columns;
mod coordinators;
mod error_page;
mod form;
mod job;
mod job_query;
mod jobs;
mod layout;
mod marks;
mod overview;
mod program;
mod question;
#[cfg(test)]
mod samples;
mod sign_in;
mod statistics;
mod submit;
mod task_stream;
mod words;
mod workers;

pub use assets::{Asset, asset, stand_in};
pub use bulk::{BulkChange, bulk_outcome, bulk_page};
pub use coordinators::coordinators_page;
pub use error_page::error_page;
pub use form::{form_field, form_number, job_body};
pub use job::{JobDetails, TaskList, job_page};
pub use job_query::{JobQuery, Since};
pub use jobs::{JobList, jobs_page};
pub use layout::Viewer;
pub use overview::{Failures, Overview, Sample, overview_page};
pub use program::TaskLogs;
pub use question::{drain_question_page, job_question_page};
pub use sign_in::sign_in_page;
pub use statistics::{Period, Statistics, statistics_page};
pub use submit::{SubmitForm, submit_page};
pub use task_stream::{StreamBar, StreamRow, TaskStream, WINDOWS, task_stream_page};
pub use workers::workers_page;
