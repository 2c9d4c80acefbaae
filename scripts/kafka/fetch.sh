#!/usr/bin/env bash
# Puts Apache Kafka's broker into target/kafka/libs, from Maven's artifacts. Needs mvn and java 17 (Debian: maven).
set -euo pipefail
cd "$(dirname "$0")/../.."
libs=$PWD/target/kafka/libs
if [ -e "$libs/.complete" ] && cmp -s scripts/kafka/pom.xml "$libs/.complete"; then exit 0; fi
rm -rf "$libs"
mkdir -p target/kafka
# Maven writes beside the file that it reads.
cp scripts/kafka/pom.xml target/kafka/pom.xml
mvn --quiet --batch-mode -Dstyle.color=never --file target/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory="$libs"
cp scripts/kafka/pom.xml "$libs/.complete"
