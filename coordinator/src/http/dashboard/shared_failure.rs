//! Failures that viewers share. Each waits for those before it to gather what all of them get: while the store says nothing, each
//! would wait for an attempt of its own after all other ones.

use std::time::Instant;

use service::ApiError;

/// The last attempt to gather something, if the store could not be read: the instant of its beginning, and its error.
#[derive(Debug, Default)]
pub(super) struct SharedFailure(Option<(Instant, String)>);

impl SharedFailure {
    /// Whether a viewer that came at this instant is to make an attempt.
    ///
    /// # Errors
    /// An attempt that began later has failed.
    pub(super) fn check(&self, came_at: Instant) -> Result<(), ApiError> {
        match self.0.as_ref().filter(|(began_at, _)| *began_at >= came_at) {
            Some((_, error)) => Err(ApiError::Unavailable(error.clone())),
            None => Ok(()),
        }
    }

    /// Notes the result of an attempt, and returns it.
    pub(super) fn note<T>(&mut self, began_at: Instant, attempt: Result<T, ApiError>) -> Result<T, ApiError> {
        self.0 = None;
        if let Err(ApiError::Unavailable(error)) = &attempt {
            self.0 = Some((began_at, error.clone()));
        }
        attempt
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_is_that_of_all_who_came_before_its_attempt_began() {
        let mut failure = SharedFailure::default();
        let began_at = Instant::now();
        let away = || Err::<(), _>(ApiError::Unavailable("it says nothing".to_owned()));
        assert!(failure.check(began_at).is_ok());
        assert!(failure.note(began_at, away()).is_err());
        let told = failure.check(began_at).expect_err("it came before");
        assert_eq!(told.to_string(), "it says nothing; try again later");
        assert!(failure.check(began_at + Duration::from_millis(1)).is_ok(), "it tries again");
        assert!(failure.note(began_at, Ok(())).is_ok());
        assert!(failure.check(began_at).is_ok());
        assert!(failure.note(began_at, Err::<(), _>(ApiError::Internal("of one viewer".to_owned()))).is_err());
        assert!(failure.check(began_at).is_ok());
    }
}
