#!/usr/bin/env bash
# A broker of Apache Kafka on ADDRESS:PORT with its data in DIRECTORY, in the foreground: broker.sh PORT DIRECTORY [ADDRESS]
set -euo pipefail
port=$1 directory=$2 address=${3:-127.0.0.1}
"$(dirname "$0")/fetch.sh"
cd "$(dirname "$0")/../.."
libs=$PWD/target/kafka/libs
mkdir -p "$directory"
cat > "$directory/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://$address:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://$address:$port
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$directory/data
num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
java=(java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*")
if [ ! -e "$directory/data/meta.properties" ]; then
  "${java[@]}" kafka.tools.StorageTool format --cluster-id MkU3OEVBNTcwNTJENDM2Qg --standalone \
    --config "$directory/server.properties" >/dev/null
fi
exec "${java[@]}" kafka.Kafka "$directory/server.properties"
