//! The names of topics: they begin with a prefix, by which several grids share brokers.

use std::sync::Arc;

use model::Priority;

/// Beginning of the topics' names by default.
pub(crate) const DEFAULT_PREFIX: &str = "divvy";
/// The longest prefix: Kafka takes names of 249 characters.
pub(crate) const MAX_PREFIX_LENGTH: usize = 200;

/// The prefix of the names of topics. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics(Arc<str>);

impl Default for Topics {
    fn default() -> Self {
        Self(DEFAULT_PREFIX.into())
    }
}

impl Topics {
    /// The topics with this prefix; `None` if Kafka allows no such names.
    pub(crate) fn with_prefix(prefix: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_PREFIX_LENGTH).contains(&prefix.len()) && prefix.bytes().all(is_allowed);
        fits.then(|| Self(prefix.into()))
    }

    /// The topic of events, keyed by job.
    pub(crate) fn events(&self) -> String {
        format!("{}.events", self.0)
    }

    /// The topic of the workers' state, keyed by worker.
    pub(crate) fn workers(&self) -> String {
        format!("{}.workers", self.0)
    }

    /// The topic of records that are no jobs.
    pub(crate) fn dead(&self) -> String {
        format!("{}.submit.dead", self.0)
    }

    /// The topic of the jobs of a priority.
    pub(crate) fn submit(&self, priority: Priority) -> String {
        format!("{}.submit.{}", self.0, priority.get())
    }

    /// The priority of a topic of jobs.
    pub(crate) fn priority_of(&self, topic: &str) -> Option<Priority> {
        let number: u8 = topic.strip_prefix(&*self.0)?.strip_prefix(".submit.")?.parse().ok()?;
        Priority::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_the_prefix_and_tell_the_priority() {
        let topics = Topics::with_prefix("my.grid").expect("allowed");
        assert_eq!(topics.events(), "my.grid.events");
        let five = Priority::try_from(5).expect("a priority");
        assert_eq!(topics.submit(five), "my.grid.submit.5");
        assert_eq!(topics.priority_of("my.grid.submit.5"), Some(five));
        for other in ["divvy.submit.5", "my.grid.submit.dead", "my.grid.submit.10", "my.grid.events"] {
            assert_eq!(topics.priority_of(other), None, "{other}");
        }
    }

    #[test]
    fn prefixes_that_kafka_allows_in_no_name_are_refused() {
        let too_long = "a".repeat(MAX_PREFIX_LENGTH + 1);
        for prefix in ["", "a b", "a/b", "ä", &too_long] {
            assert_eq!(Topics::with_prefix(prefix), None, "{prefix}");
        }
    }
}
