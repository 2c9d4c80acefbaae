//! Kafka's classes, as `scripts/kafka/fetch.sh` gets them.

use std::path::Path;
use std::process::Command;

/// Memory and threads enough for a test. Compiling less makes it start sooner.
const JAVA: [&str; 5] =
    ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"];

/// The command to run one of the classes.
pub(crate) fn java() -> Command {
    let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/libs");
    assert!(libs.join(".complete").exists(), "no broker in {}: run scripts/kafka/fetch.sh", libs.display());
    let libs = libs.canonicalize().expect("it is there");
    let mut command = Command::new("java");
    // Classes as scripts/kafka/fetch.sh has kept them; a JVM that cannot use them goes on without.
    let classes = libs.with_file_name("broker.jsa");
    if classes.exists() {
        command.arg(format!("-XX:SharedArchiveFile={}", classes.display())).args(["-Xshare:auto", "-Xlog:disable"]);
    }
    command.args(JAVA).arg(libs.join("*"));
    command
}
