//! Settings that are refused at the start.

use crate::helpers::refusal;

#[test]
fn settings_that_cannot_be_used_end_the_start_with_their_cause_and_without_secrets() {
    for (brokers, config, cause) in [
        ("localhost", "", "is not a broker"),
        ("kafka://localhost:9092", "", "is not a broker"),
        ("ssl://localhost:9092", "", "names another protocol than the setting security.protocol, which is plaintext"),
        ("localhost:9092", "no.such.setting=1", "no.such.setting"),
        ("localhost:9092", "acks", "setting 1 has no value"),
        ("localhost:9092", "enable.idempotence=false", "enable.idempotence is set by divvy"),
        ("localhost:9092", "metadata.broker.list=other:9092", "metadata.broker.list is set by divvy"),
        ("localhost:9092", "acks=1", "acks"),
        ("localhost:9092", "retries=0", "retries"),
        (
            "localhost:9092",
            "max.in.flight.requests.per.connection=3",
            "max.in.flight.requests.per.connection is set by divvy",
        ),
        ("localhost:9092", "queuing.strategy=lifo", "fifo"),
        ("localhost:9092", "security.protocol=ssl,ssl.key.pem=hunter2", ""),
        ("localhost:9092", "security.protocol=sasl_ssl,sasl.mechanism=NONE,sasl.password=hunter2", ""),
    ] {
        let said = refusal(&[("DIVVY_KAFKA_BROKERS", brokers), ("DIVVY_KAFKA_CONFIG", config)]);
        assert!(said.contains("DIVVY_KAFKA_CONFIG") && said.contains(cause), "{config}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
