//! The Java command for Kafka's classes, which `scripts/kafka/fetch.sh` gets.

use std::path::Path;
use std::process::Command;

/// Memory and threads that are enough for a test. With less compilation a JVM starts sooner.
const JAVA: [&str; 5] =
    ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"];

/// The command to run one of the classes.
pub(crate) fn java() -> Command {
    let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/libs");
    assert!(libs.join(".complete").exists(), "no broker in {}: run scripts/kafka/fetch.sh", libs.display());
    let libs = libs.canonicalize().expect("it is there");
    let mut command = Command::new("java");
    // The class archive of scripts/kafka/fetch.sh; a JVM that cannot use it starts without.
    let classes = libs.with_file_name("broker.jsa");
    if classes.exists() {
        command.arg(format!("-XX:SharedArchiveFile={}", classes.display())).args(["-Xshare:auto", "-Xlog:disable"]);
    }
    command.args(JAVA).arg(libs.join("*"));
    command
}
