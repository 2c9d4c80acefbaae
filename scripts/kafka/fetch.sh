#!/usr/bin/env bash
# Puts Apache Kafka's broker into target/kafka/libs, from Maven's artifacts, and its classes as the JVM has them after loading
# into target/kafka/broker.jsa: a broker starts in half the time with them. Needs mvn and java 17 (Debian: maven).
set -euo pipefail
cd "$(dirname "$0")/../.."
libs=$PWD/target/kafka/libs
if ! [ -e "$libs/.complete" ] || ! cmp -s scripts/kafka/pom.xml "$libs/.complete"; then
  rm -rf "$libs"
  mkdir -p target/kafka
  # Maven writes beside the file that it reads.
  cp scripts/kafka/pom.xml target/kafka/pom.xml
  mvn --quiet --batch-mode -Dstyle.color=never --file target/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$libs"
  cp scripts/kafka/pom.xml "$libs/.complete"
fi

archive=$PWD/target/kafka/broker.jsa
if [ -e "$archive" ] && [ "$archive" -nt "$libs/.complete" ]; then exit 0; fi
directory=$(mktemp -d)
broker=
finish() {
  [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null || true
  rm -rf "$directory"
}
trap finish EXIT
mkdir "$directory/data"
printf '%s\n' version=1 cluster.id=MkU3OEVBNTcwNTJENDM2Qg node.id=1 directory.id=LdGmRrVKQSyZbV5uMVdRqA \
  > "$directory/data/meta.properties"
port=$(shuf -i 20000-30000 -n 1)
cat > "$directory/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$directory/data
offsets.topic.replication.factor=1
PROPERTIES
# The collector and the path of the tests: classes are kept for them.
java -Xmx384m -XX:+UseSerialGC -XX:ArchiveClassesAtExit="$archive.new" -Xlog:disable \
  -cp "$(realpath "$libs")/*" kafka.Kafka "$directory/server.properties" >/dev/null 2>&1 &
broker=$!
for _ in $(seq 600); do
  if kcat -b "127.0.0.1:$port" -L -m 1 >/dev/null 2>&1; then break; fi
  sleep 0.2
done
# A topic with records: what writes and reads logs is loaded too.
seq 100 | kcat -b "127.0.0.1:$port" -P -t archive -X message.timeout.ms=20000 || true
kcat -b "127.0.0.1:$port" -C -t archive -o beginning -e -q >/dev/null 2>&1 || true
kill -TERM "$broker"
wait "$broker" || true
broker=
# Without it brokers start more slowly, and work.
if [ -e "$archive.new" ]; then mv "$archive.new" "$archive"; fi
