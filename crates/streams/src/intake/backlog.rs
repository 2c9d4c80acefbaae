//! Backpressure: no record is read while the store has many changes to commit.

use store::Store;

/// Changes that wait for the store above which nothing is read.
const MAX_BACKLOG: u64 = 20_000;

/// Whether too many changes wait for the store.
pub(super) fn is_long(store: &Store) -> bool {
    store.backlog() > MAX_BACKLOG
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{self, TryRecvError};
    use std::time::Duration;

    use model::{JobId, Priority, TraceContext};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, Producer};
    use store::memory::Memory;
    use store::{Advance, Advanced, Change, ChangeKind, Retention, SubmitError};
    use tokio::runtime::Runtime;
    use uuid::Uuid;

    use super::*;
    use crate::client::Context;
    use crate::intake::{Acceptor, IncomingJob, Intake};
    use crate::settings::Settings;
    use crate::spans::EndedRecord;
    use crate::thread::{Stop, start};

    const LONG: Duration = Duration::from_secs(60);
    /// Rounds of the intake, each of which reads for up to a tenth of a second unless the backlog is long.
    const ROUNDS: usize = 10;

    /// Takes no record for a job. Reports the backlog at which each record is read.
    struct Refusing {
        store: Arc<Store>,
        reads: mpsc::Sender<u64>,
    }

    impl Acceptor for Refusing {
        fn read(&self, _: &[u8], _: Priority, _: Option<&str>, _: Option<TraceContext>) -> Result<IncomingJob, String> {
            // The test may be over.
            let _ = self.reads.send(self.store.backlog());
            Err("it is no job".to_owned())
        }

        fn accept(&self, moves: Vec<Advance>) -> impl Future<Output = Vec<Result<Advanced, SubmitError>>> + Send {
            let answers: Vec<Result<Advanced, SubmitError>> = moves.iter().map(|_| Ok(Advanced::Moved)).collect();
            std::future::ready(answers)
        }

        fn ended(&self, _: EndedRecord<'_>) {}
    }

    #[test]
    fn no_record_is_read_while_the_backlog_of_the_store_is_long() {
        let cluster = MockCluster::new(1).expect("a broker");
        let settings = Settings::parse(&cluster.bootstrap_servers(), "").expect("valid");
        let topic = settings.topics().submit(Priority::try_from(5).expect("a priority"));
        cluster.create_topic(&topic, 1, 1).expect("a topic");
        cluster.create_topic(&settings.topics().dead(), 1, 1).expect("a topic");
        let producer = settings.producer(Context::default(), 1).expect("a producer");
        assert!(producer.send(BaseRecord::<(), str>::to(&topic).payload("no job")).is_ok());
        producer.flush(LONG).expect("the broker has the record");

        let memory = Memory::new();
        let store = Arc::new(memory.store(Retention::KEEP_ALL).expect("a thread"));
        memory.hold_commits(true);
        let change = Change { job: JobId(Uuid::nil()), at: Default::default(), kind: ChangeKind::Started };
        for _ in 0..=MAX_BACKLOG {
            store.record(change.clone());
        }

        let runtime = Runtime::new().expect("a runtime");
        let ((read, reads), (asked, asks)) = (mpsc::channel(), mpsc::channel());
        let acceptor = Refusing { store: Arc::clone(&store), reads: read };
        let intake = Intake { settings, store, acceptor, figures: Arc::default(), runtime: runtime.handle().clone() };
        // Each round begins with the question whether the intake may act.
        let trust = move || {
            let _ = asked.send(());
            true
        };
        let running = start("intake", trust, move |stop: &Stop| intake.run(stop)).expect("a thread");
        for _ in 0..ROUNDS {
            asks.recv_timeout(LONG).expect("the intake goes on");
        }
        let early = reads.try_recv();
        memory.hold_commits(false);
        assert_eq!(early, Err(TryRecvError::Empty), "a record was read");
        let backlog = reads.recv_timeout(LONG).expect("the record is read once the backlog is short");
        assert!(backlog <= MAX_BACKLOG, "{backlog} changes waited");
        drop(running);
        // The intake has ended when its acceptor is gone.
        while reads.recv_timeout(LONG).is_ok() {}
    }
}
