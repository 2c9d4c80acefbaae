#!/usr/bin/env bash
# The tests with Kafka at full size: 100,000 events under 50 kills of coordinator and broker, 10,000 records under 50 kills,
# and as many under leaders that are killed and paused. Needs what scripts/test.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/kafka/fetch.sh
export DIVVY_TEST_KAFKA_EVENTS=${EVENTS:-100000} DIVVY_TEST_KAFKA_RECORDS=${RECORDS:-10000} DIVVY_TEST_KAFKA_KILLS=${KILLS:-50}
for test in \
  kills::no_event_is_missing_or_out_of_order_however_often_coordinator_and_broker_are_killed \
  kills::each_record_is_one_job_however_often_coordinator_and_broker_are_killed \
  several::events_records_and_statistics_stay_exact_while_leaders_are_killed_and_paused; do
  cargo test --workspace --features coordinator/kafka,divvy/kafka --locked --test kafka -- --exact --nocapture "$test"
done
