//! Task streams that viewers share: many leases take long to gather, and every viewer asks for them at the same tick.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use dashboard::{TaskStream, WINDOWS};
use service::Compressed;

/// Time for which a stream of merged bars serves further viewers: less than from one tick to the next.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// The last stream of merged bars of each window.
#[derive(Debug, Default)]
pub(super) struct SharedStreams([Mutex<Option<Arc<SharedStream>>>; WINDOWS.len()]);

/// A stream, with its JSON from the first time that a viewer asks for it.
#[derive(Debug)]
pub(super) struct SharedStream {
    gathered_at: Instant,
    stream: TaskStream,
    json: OnceLock<Bytes>,
    compressed: Compressed,
}

impl SharedStreams {
    /// The stream of a window of so many seconds. A stream of single leases is gathered anew each time: it is cheap, and shows
    /// each lease as soon as it begins.
    pub(super) fn get(&self, seconds: u32, now: Instant, gather: impl FnOnce() -> TaskStream) -> Arc<SharedStream> {
        let place = WINDOWS.iter().position(|window| *window == seconds).unwrap_or_default();
        // Held while the stream is gathered: concurrent viewers get the same one.
        let mut last = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = last.as_ref().filter(|last| last.serves(seconds, now)) {
            return Arc::clone(fresh);
        }
        let (stream, json, compressed) = (gather(), OnceLock::new(), Compressed::default());
        let gathered = Arc::new(SharedStream { gathered_at: now, stream, json, compressed });
        *last = gathered.stream.is_aggregated.then(|| Arc::clone(&gathered));
        gathered
    }
}

impl SharedStream {
    fn serves(&self, seconds: u32, now: Instant) -> bool {
        self.stream.seconds == seconds && now.saturating_duration_since(self.gathered_at) < SHARED_FOR
    }

    pub(super) fn stream(&self) -> &TaskStream {
        &self.stream
    }

    pub(super) fn json(&self) -> Bytes {
        let write = || Bytes::from(serde_json::to_vec(&self.stream).expect("a stream is numbers and names"));
        self.json.get_or_init(write).clone()
    }

    /// The compressed form of [`Self::json`].
    pub(super) fn compressed(&self) -> &Compressed {
        &self.compressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_share_merged_bars_and_get_single_leases_anew() {
        let (streams, start) = (SharedStreams::default(), Instant::now());
        let get = |is_aggregated, after_ms| {
            let gather = || TaskStream { seconds: 60, is_aggregated, ..TaskStream::default() };
            streams.get(60, start + Duration::from_millis(after_ms), gather)
        };
        let first = get(true, 0);
        assert!(Arc::ptr_eq(&first, &get(true, 400)));
        let second = get(true, 600);
        assert!(!Arc::ptr_eq(&first, &second));
        let single = get(false, 1_200);
        assert!(!Arc::ptr_eq(&single, &get(false, 1_200)));
        let other = streams.get(30, start, || TaskStream { seconds: 30, ..TaskStream::default() });
        assert_eq!((other.stream().seconds, first.json()), (30, second.json()));
    }
}
