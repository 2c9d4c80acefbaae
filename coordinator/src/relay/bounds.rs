//! Bounds on the length of bodies that are passed on, and on the time of their arrival.

use std::time::Duration;

use service::BodySize;

use crate::config::Config;
use crate::http::{FORM_EXPANSION, REPORT_OVERHEAD_BYTES, UPLOAD_OVERHEAD_BYTES, UPLOAD_TIMEOUT};
/// Longest time that a body may take to arrive, unless it is a file.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest bodies that the leader accepts, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    usual: usize,
    form: usize,
    file: usize,
}

impl Bounds {
    pub(super) fn new(config: &Config) -> Self {
        let file = usize::try_from(config.max_program_bytes).unwrap_or(usize::MAX);
        Self {
            usual: config.max_result_bytes.saturating_add(REPORT_OVERHEAD_BYTES).max(config.max_job_bytes),
            form: config.max_job_bytes.saturating_mul(FORM_EXPANSION),
            file: file.saturating_add(UPLOAD_OVERHEAD_BYTES),
        }
    }

    /// The most bytes of a body, and how long it may take to arrive.
    pub(super) fn of(self, size: BodySize) -> (usize, Duration) {
        match size {
            BodySize::Usual => (self.usual, BODY_TIMEOUT),
            BodySize::Form => (self.form, BODY_TIMEOUT),
            BodySize::File => (self.file, UPLOAD_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_a_handler_takes_is_passed_on() {
        let config =
            Config { max_program_bytes: 1 << 30, max_job_bytes: 3 << 20, max_result_bytes: 1_024, ..Config::default() };
        let bounds = Bounds::new(&config);
        assert_eq!(bounds.of(BodySize::Usual), (3 << 20, BODY_TIMEOUT));
        assert_eq!(bounds.of(BodySize::Form), (9 << 20, BODY_TIMEOUT));
        assert_eq!(bounds.of(BodySize::File), ((1 << 30) + UPLOAD_OVERHEAD_BYTES, UPLOAD_TIMEOUT));
    }
}
