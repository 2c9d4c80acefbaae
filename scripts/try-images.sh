#!/usr/bin/env bash
# Builds the images, looks at what is in them and runs a grid of one coordinator and a worker of each variant from them, as locked
# down as the Kubernetes manifests ask: it answers, loses a worker, answers again, and stops cleanly. Needs docker and curl.
# Everything it makes is removed, except the layers that the next build can use.
#
# BUILD_IMAGE and RUNTIME_IMAGE replace the bases of the Dockerfiles, SLIM_IMAGE that of the worker to extend, DOCKER the
# engine's client.
set -euo pipefail
cd "$(dirname "$0")/.."

docker=${DOCKER:-docker}
run=divvy-try-$$
token=$run-token
slim_base=${SLIM_IMAGE:-docker.io/library/debian:bookworm-slim}
# Of a service's image on the base without a shell, compressed, as a registry stores it and a node pulls it. Unpacked it is about
# twice as much: of the coordinator's binary 36 MB, of the worker's 30 MB, the rest is the base.
max_kilobytes=30000
failed=yes

clean_up() {
  for name in coordinator worker-1 worker-2; do
    if ! "$docker" container inspect "$run-$name" >/dev/null 2>&1; then continue; fi
    if [ "$failed" = yes ]; then
      echo "--- last lines of $name"
      "$docker" logs --tail 20 "$run-$name" 2>&1
    fi
    "$docker" rm --force --volumes "$run-$name" >/dev/null
  done
  # Containers that were only looked into, where a check has failed.
  "$docker" rm --force "$run-coordinator-files" "$run-worker-files" "$run-worker-slim-files" >/dev/null 2>&1 || true
  "$docker" network rm "$run" >/dev/null 2>&1 || true
  "$docker" image rm "$run-coordinator" "$run-worker" "$run-worker-slim" >/dev/null 2>&1 || true
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

build() {
  local component=$1 started=$SECONDS
  shift
  local bases=()
  for base in BUILD_IMAGE RUNTIME_IMAGE; do
    if [ -n "${!base:-}" ]; then bases+=(--build-arg "$base=${!base}"); fi
  done
  bases+=(--build-arg "REVISION=$(git rev-parse HEAD)" "$@")
  DOCKER_BUILDKIT=1 timeout 1800 "$docker" build --file "Dockerfile.$component" --tag "$run-$component" "${bases[@]}" .
  local size
  size=$("$docker" image inspect --format '{{.Size}}' "$run-$component")
  echo "built $component: $((size / 1000)) kB in $((SECONDS - started)) s"
}

# Faults of the image: a user with rights, programs that give rights, files that anyone may change.
look_into() {
  local component=$1 user listing
  user=$("$docker" image inspect --format '{{.Config.User}}' "$run-$component")
  [ "$user" = 65532:65532 ] || fail "$component runs as '$user'"
  "$docker" create --name "$run-$component-files" "$run-$component" >/dev/null
  listing=$("$docker" export "$run-$component-files" | tar --list --verbose --numeric-owner)
  "$docker" rm "$run-$component-files" >/dev/null
  # /tmp, /var/tmp and the like are writable on purpose, and read-only where the manifests run the image.
  local open given
  open=$(grep --extended-regexp '^[-d].{7}w' <<<"$listing" | grep --invert-match --extended-regexp '^drwxrwxrwt' || true)
  [ -z "$open" ] || fail "$component: anyone may write $open"
  given=$(grep --extended-regexp '^-..[sS]|^-.{5}[sS]' <<<"$listing" || true)
  if [ "$component" != worker-slim ]; then
    [ -z "$given" ] || fail "$component: programs with rights of their own: $given"
  fi
  echo "$component: user $user, $(wc --lines <<<"$listing") files, nothing that anyone may write"
}

# fits COMPONENT KILOBYTES
fits() {
  local size
  size=$("$docker" save "$run-$1" | gzip --stdout | wc --bytes)
  [ "$((size / 1000))" -le "$2" ] || fail "$1 has $((size / 1000)) kB of $2"
  echo "$1: $((size / 1000)) kB compressed"
}

# The bill of materials has every crate whose name is in the binary, as messages of panics have it.
lists_what_is_linked() {
  local bill=target/sbom/divvy-$1.cdx.json missing
  "$docker" create --name "$run-$1-files" "$run-$1" >/dev/null
  missing=$("$docker" cp "$run-$1-files:/usr/local/bin/divvy-$1" - | tar --extract --to-stdout |
    grep --text --only-matching --extended-regexp 'index\.crates\.io-[0-9a-f]+/[a-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9a-z.+-]+/' |
    cut --delimiter=/ --fields=2 | sort --unique |
    while read -r crate; do
      # The name ends before the first number; what follows the version may have hyphens, too.
      [[ $crate =~ ^([a-z_][a-z0-9_]*(-[a-z_][a-z0-9_]*)*)-([0-9]+\..*)$ ]] || fail "$crate is no crate"
      grep --quiet --fixed-strings "pkg:cargo/${BASH_REMATCH[1]}@${BASH_REMATCH[3]}\"" "$bill" || echo "$crate"
    done)
  "$docker" rm "$run-$1-files" >/dev/null
  [ -z "$missing" ] || fail "$bill lacks $missing"
  echo "$bill: $(grep --count '"purl"' "$bill") components"
}

# start NAME IMAGE MEMORY [OPTION…]
start() {
  local name=$1 image=$2 memory=$3
  shift 3
  "$docker" run --detach --name "$run-$name" --network "$run" --network-alias "$name" \
    --read-only --cap-drop ALL --security-opt no-new-privileges --memory "$memory" --cpus 1 --pids-limit 256 \
    --env DIVVY_LOG_FORMAT=json --env "DIVVY_WORKER_TOKEN=$token" "$@" "$run-$image" >/dev/null
}

get() {
  curl --silent --show-error --fail --noproxy '*' --max-time 15 "$url$1"
}

# Until the deadline the grid may still be on its way there.
wait_for_workers() {
  local wanted=$1 deadline=$((SECONDS + 30)) listed=
  until listed=$(get /workers 2>/dev/null | grep --only-matching 'worker-[12]' | sort --unique | xargs) &&
    [ "$listed" = "$wanted" ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "workers: '$listed' instead of '$wanted'"
    sleep 0.2
  done
  echo "GET /workers: $(get /workers)"
}

ask() {
  local question='/sum-of-primes?a=10&b=3700000' body
  body=$(get "$question") || fail "GET $question: no answer"
  echo "GET $question: $body"
  [[ $body == *'"sum":"468476582935"'* ]] || fail 'the answer is wrong'
}

stop() {
  local name=$1 started=$SECONDS code
  "$docker" stop --time 20 "$run-$name" >/dev/null
  code=$("$docker" inspect --format '{{.State.ExitCode}}' "$run-$name")
  [ "$code" = 0 ] || fail "$name exited with $code on SIGTERM"
  echo "$name exited with 0 on SIGTERM after $((SECONDS - started)) s"
}

build coordinator
build worker
build worker-slim --build-arg "WORKER_IMAGE=$run-worker" --build-arg "RUNTIME_IMAGE=$slim_base"
for component in coordinator worker worker-slim; do look_into "$component"; done
fits coordinator "$max_kilobytes"
fits worker "$max_kilobytes"
scripts/sbom.sh
for component in coordinator worker; do lists_what_is_linked "$component"; done
"$docker" network create "$run" >/dev/null
start coordinator coordinator 1g --publish 127.0.0.1::8080 --mount type=volume,dst=/var/lib/divvy
url=http://$("$docker" port "$run-coordinator" 8080/tcp | head -n 1)
# One of each variant.
for worker in 'worker-1 worker' 'worker-2 worker-slim'; do
  read -r name image <<<"$worker"
  start "$name" "$image" 512m --env DIVVY_COORDINATOR=http://coordinator:8081 --env "DIVVY_WORKER_ID=$name"
done

wait_for_workers 'worker-1 worker-2'
ask
"$docker" kill --signal KILL "$run-worker-1" >/dev/null
echo 'killed worker-1'
ask
wait_for_workers worker-2

stop worker-2
stop coordinator
failed=no
echo 'the images work'
