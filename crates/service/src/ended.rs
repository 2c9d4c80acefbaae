//! Tasks that end although nothing has told them to.

use std::any::Any;
use std::io;

use tokio::task::JoinError;

/// The error of a part of the process that was to run until it is told to end.
#[must_use]
pub fn ended_by_itself(part: &str, ended: Result<io::Result<()>, JoinError>) -> anyhow::Error {
    let how = match ended {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => format!(": {error}"),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => format!(": it panicked: {}", message_of(&*panic)),
            Err(_) => ": it was canceled".to_owned(),
        },
    };
    anyhow::anyhow!("{part} ended by itself{how}")
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(slot: u32) -> io::Result<()> {
        panic!("no lease in \"slot\" {slot}")
    }

    #[tokio::test]
    async fn the_end_of_a_part_is_told_in_plain_words() {
        let told = |ended| ended_by_itself("a part", ended).to_string();
        assert_eq!(told(Ok(Ok(()))), "a part ended by itself");
        assert_eq!(told(Ok(Err(io::Error::other("no \"address\"")))), "a part ended by itself: no \"address\"");
        let panicked = tokio::spawn(async { panics(7) }).await;
        assert_eq!(told(panicked), "a part ended by itself: it panicked: no lease in \"slot\" 7");
        let canceled = tokio::spawn(std::future::pending::<io::Result<()>>());
        canceled.abort();
        assert_eq!(told(canceled.await), "a part ended by itself: it was canceled");
    }
}
