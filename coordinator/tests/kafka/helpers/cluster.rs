//! Three brokers of Apache Kafka that are one cluster, each a controller too: two of them choose leaders without the third.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use test_postgres::own_addresses;

use super::{Broker, Coordinator, eventually};

/// A heap that is large enough for a test.
const SMALL: &[&str] = &["-Xmx256m"];
/// Clusters run one after the other: the processes of each take a gigabyte.
static TURN: Mutex<()> = Mutex::new(());

/// The three brokers, which are killed when this is dropped.
pub(crate) struct Cluster {
    brokers: [Broker; 3],
    _turn: MutexGuard<'static, ()>,
}

/// The settings of a broker except its number. A broker that only has to wait for the processor stays in sync: the time after
/// which the others give it up is twice the default.
fn settings(own: SocketAddr, controller: SocketAddr, voters: &str) -> String {
    format!(
        "process.roles=broker,controller\nlisteners=PLAINTEXT://{own},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{own}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\ncontroller.quorum.voters={voters}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         num.partitions=3\ndefault.replication.factor=2\nmin.insync.replicas=1\n\
         offsets.topic.replication.factor=2\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=2\ntransaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nlog.cleaner.enable=false\n\
         broker.session.timeout.ms=18000\nbroker.heartbeat.interval.ms=1000\n"
    )
}

impl Cluster {
    /// A cluster whose brokers all serve.
    pub(crate) fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = own_addresses::<6>();
        let (own, controllers) = addresses.split_at(3);
        let voters: Vec<_> = (1..).zip(controllers).map(|(node, address)| format!("{node}@{address}")).collect();
        let voters = voters.join(",");
        let member = |place: usize| {
            Broker::member(own[place], place + 1, SMALL, &settings(own[place], controllers[place], &voters))
        };
        let mut cluster = Self { brokers: [0, 1, 2].map(member), _turn: turn };
        // No broker serves without another one.
        cluster.brokers.iter_mut().for_each(Broker::launch);
        cluster.brokers.iter().for_each(Broker::wait);
        cluster.wait_for("every broker is known", |metadata| {
            metadata["brokers"].as_array().is_some_and(|brokers| brokers.len() == 3)
        });
        cluster
    }

    /// A coordinator that knows all the brokers, and whose log has the messages of librdkafka.
    pub(crate) fn coordinator(&self) -> Coordinator {
        let addresses: Vec<_> = self.brokers.iter().map(Broker::address).collect();
        let addresses = addresses.join(",");
        let variables = [("DIVVY_KAFKA_BROKERS", addresses.as_str()), ("DIVVY_LOG", "info,streams=debug")];
        Coordinator::start_with(self.tools(), &variables)
    }

    /// The broker that `kcat` and Kafka's tools connect to first. It is never killed.
    pub(crate) fn tools(&self) -> &Broker {
        &self.brokers[0]
    }

    /// Kills broker 2 or 3 by SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        self.brokers[node - 1].kill();
    }

    /// Starts a broker again.
    pub(crate) fn go(&mut self, node: usize) {
        self.brokers[node - 1].go();
    }

    /// Waits until each partition of a topic has all its replicas.
    pub(crate) fn wait_until_in_sync(&self, topic: &str) {
        let count = |partition: &Value, field: &str| partition[field].as_array().map(Vec::len);
        self.wait_for_partitions("all replicas are in sync", topic, |partition| {
            partition["leader"].as_i64() >= Some(0) && count(partition, "isrs") == count(partition, "replicas")
        });
    }

    /// Waits until the brokers know that a broker is gone: it leads no partition of a topic.
    pub(crate) fn wait_until_led_without(&self, node: usize, topic: &str) {
        self.wait_for_partitions("it leads none", topic, |partition| partition["leader"] != node);
    }

    /// Waits until other brokers than this one lead all partitions of a topic.
    pub(crate) fn wait_until_led_by_others(&self, node: usize, topic: &str) {
        self.wait_for_partitions("others lead", topic, |partition| {
            partition["leader"].as_i64() >= Some(0) && partition["leader"] != node
        });
    }

    fn wait_for_partitions(&self, what: &str, topic: &str, is_so: impl Fn(&Value) -> bool) {
        let topic = self.tools().topic(topic);
        self.wait_for(what, |metadata| {
            let mut topics = metadata["topics"].as_array().into_iter().flatten();
            let found = topics.find(|found| found["topic"] == topic.as_str());
            let partitions = found.and_then(|found| found["partitions"].as_array());
            partitions.is_some_and(|partitions| !partitions.is_empty() && partitions.iter().all(&is_so))
        });
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        eventually(what, || is_so(&self.tools().metadata()).then_some(()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (node, broker) in (1..).zip(&mut self.brokers) {
                eprintln!("broker {node} {}", if broker.has_ended() { "does not run" } else { "runs" });
            }
            eprintln!("the brokers as the first one describes them:\n{}", self.tools().described());
        }
    }
}
