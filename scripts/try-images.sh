#!/usr/bin/env bash
# Builds the images, looks at what is in them and runs a grid of one coordinator and a worker of each variant from them, as locked
# down as the Kubernetes manifests ask: it answers, loses a worker, answers again, runs a named program and a Python task, and stops
# cleanly. Needs docker and curl. Everything it makes is removed, except the layers that the next build can use.
#
# BUILD_IMAGE, RUNTIME_IMAGE and PYTHON_IMAGE replace the bases of the Dockerfiles, such as by those of a mirror, SLIM_IMAGE that
# of the worker to extend, DOCKER the engine's client.
set -euo pipefail
cd "$(dirname "$0")/.."

docker=${DOCKER:-docker}
run=divvy-try-$$
token=$run-token
# Named programs need a token of a client.
client=$run-client
images=(coordinator worker worker-slim worker-sums python-worker python-worker-tasks)
containers=(coordinator worker-1 worker-2 worker-3 python-1)
looked_into=("${images[@]/#/$run-}")
looked_into=("${looked_into[@]/%/-files}")
scratch=$(mktemp -d)
slim_base=${SLIM_IMAGE:-docker.io/library/debian:bookworm-slim}
# Of a service's image on the base without a shell, compressed, as a registry stores it and a node pulls it. Unpacked it is about
# twice as much.
max_kilobytes=30000
failed=yes

clean_up() {
  for name in "${containers[@]}"; do
    if ! "$docker" container inspect "$run-$name" >/dev/null 2>&1; then continue; fi
    if [ "$failed" = yes ]; then
      echo "--- last lines of $name"
      "$docker" logs --tail 20 "$run-$name" 2>&1
    fi
    "$docker" rm --force --volumes "$run-$name" >/dev/null
  done
  # Containers that were only looked into, where a check has failed.
  "$docker" rm --force "${looked_into[@]}" >/dev/null 2>&1 || true
  "$docker" network rm "$run" >/dev/null 2>&1 || true
  "$docker" image rm "${images[@]/#/$run-}" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# build IMAGE DOCKERFILE DIRECTORY [OPTION…]
build() {
  local image=$1 file=$2 directory=$3 started=$SECONDS
  shift 3
  local bases=()
  # An argument that the Dockerfile does not have is an error of some engines.
  for base in BUILD_IMAGE RUNTIME_IMAGE PYTHON_IMAGE; do
    if [ -n "${!base:-}" ] && grep --quiet "^ARG $base=" "$file"; then bases+=(--build-arg "$base=${!base}"); fi
  done
  if grep --quiet '^ARG REVISION=' "$file"; then bases+=(--build-arg "REVISION=$(git rev-parse HEAD)"); fi
  DOCKER_BUILDKIT=1 timeout 3600 "$docker" build --file "$file" --tag "$run-$image" "${bases[@]}" "$@" "$directory"
  echo "built $image in $((SECONDS - started)) s"
}

# Faults of the image: a user with rights, programs that give rights, files that anyone may change.
look_into() {
  local image=$1 user listing
  user=$("$docker" image inspect --format '{{.Config.User}}' "$run-$image")
  [ "$user" = 65532:65532 ] || fail "$image runs as '$user'"
  "$docker" create --name "$run-$image-files" "$run-$image" >/dev/null
  listing=$("$docker" export "$run-$image-files" | tar --list --verbose --numeric-owner)
  "$docker" rm "$run-$image-files" >/dev/null
  # /tmp, /var/tmp and the like are writable on purpose, and read-only where the manifests run the image.
  local open given own
  open=$(grep --extended-regexp '^[-d].{7}w' <<<"$listing" | grep --invert-match --extended-regexp '^drwxrwxrwt' || true)
  [ -z "$open" ] || fail "$image: anyone may write $open"
  given=$(grep --extended-regexp '^-..[sS]|^-.{5}[sS]' <<<"$listing" || true)
  # Debian has some, which do nothing under no-new-privileges.
  case $image in
    coordinator | worker) [ -z "$given" ] || fail "$image: programs with rights of their own: $given" ;;
  esac
  own=$(awk '$1 ~ /^drwxrwxrwt/ || $2 == "65532/65532" { print "/" $6 }' <<<"$listing" | xargs)
  echo "$image: user $user, $(wc --lines <<<"$listing") files, $(grep --count . <<<"$given" || true) with rights of their own, writable: $own"
}

# sizes IMAGE [MOST]: in kB, compressed as a registry stores it and a node pulls it, and unpacked.
sizes() {
  local size unpacked
  size=$("$docker" save "$run-$1" | gzip --stdout | wc --bytes)
  unpacked=$("$docker" image inspect --format '{{.Size}}' "$run-$1")
  [ "$((size / 1000))" -le "${2:-$((size / 1000))}" ] || fail "$1 has $((size / 1000)) kB of $2"
  echo "$1: $((size / 1000)) kB compressed, $((unpacked / 1000)) kB unpacked"
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

# start NAME IMAGE MEMORY [OPTION…]: the options of the engine, and after `--` those of the program.
start() {
  local name=$1 image=$2 memory=$3 options=()
  shift 3
  while [ "$#" -gt 0 ] && [ "$1" != -- ]; do options+=("$1") && shift; done
  [ "$#" = 0 ] || shift
  "$docker" run --detach --name "$run-$name" --network "$run" --network-alias "$name" \
    --read-only --cap-drop ALL --security-opt no-new-privileges --memory "$memory" --cpus 1 --pids-limit 256 \
    --env DIVVY_LOG_FORMAT=json --env "DIVVY_WORKER_TOKEN=$token" "${options[@]}" "$run-$image" "$@" >/dev/null
}

get() {
  curl --silent --show-error --fail --noproxy '*' --max-time 60 --header "authorization: Bearer $client" "$url$1"
}

# gives JOB TEXT: submits a job, waits for its end and finds the text in its result.
gives() {
  local id result
  id=$(curl --silent --show-error --fail --noproxy '*' --max-time 60 --header "authorization: Bearer $client" --json "$1" \
    "$url/v1/jobs" | sed --quiet 's/.*"id":"\([^"]*\)".*/\1/p')
  result=$(get "/v1/jobs/$id/result?wait=50s") || fail "no result of $(get "/v1/jobs/$id")"
  echo "$1: $result"
  [[ $result == *"$2"* ]] || fail "the result has no $2"
}

# Until the deadline the grid may still be on its way there.
wait_for_workers() {
  local wanted=$1 deadline=$((SECONDS + 30)) listed=
  until listed=$(get /workers 2>/dev/null | grep --only-matching 'worker-[123]' | sort --unique | xargs) &&
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

build coordinator Dockerfile.coordinator .
build worker Dockerfile.worker .
build worker-slim Dockerfile.worker-slim . --build-arg "WORKER_IMAGE=$run-worker" --build-arg "RUNTIME_IMAGE=$slim_base"
build worker-sums programs/sum_integers/Dockerfile programs/sum_integers --build-arg "WORKER_IMAGE=$run-worker"
build python-worker sdk/python/Dockerfile.python-worker sdk/python
# As the manual tells how a module with tasks comes into it.
mkdir "$scratch/tasks"
printf '[project]\nname = "tasks"\nversion = "1"\n[tool.setuptools]\npy-modules = ["tasks"]\n' >"$scratch/tasks/pyproject.toml"
printf 'import divvy\n\n\n@divvy.task("double")\ndef double(value):\n    return 2 * value\n' >"$scratch/tasks/tasks.py"
printf 'FROM %s\nUSER root\nCOPY . /tmp/tasks\nRUN pip install --no-cache-dir /tmp/tasks && rm -r /tmp/tasks\nUSER 65532:65532\n' \
  "$run-python-worker" >"$scratch/tasks/Dockerfile"
build python-worker-tasks "$scratch/tasks/Dockerfile" "$scratch/tasks"
for image in "${images[@]}"; do look_into "$image"; done
for image in coordinator worker; do sizes "$image" "$max_kilobytes"; done
for image in worker-slim worker-sums python-worker; do sizes "$image"; done
scripts/sbom.sh
for component in coordinator worker; do lists_what_is_linked "$component"; done
"$docker" network create "$run" >/dev/null
printf '[[token]]\nname = "images"\nsha256 = "%s"\nrights = ["admin"]\n' \
  "$(printf %s "$client" | sha256sum | cut --delimiter=' ' --fields=1)" >"$scratch/tokens.toml"
chmod 755 "$scratch"
start coordinator coordinator 1g --publish 127.0.0.1::8080 --mount type=volume,dst=/var/lib/divvy \
  --mount "type=bind,src=$scratch/tokens.toml,dst=/etc/divvy/tokens.toml,readonly" --env DIVVY_API_TOKENS_FILE=/etc/divvy/tokens.toml
url=http://$("$docker" port "$run-coordinator" 8080/tcp | head -n 1)
# One of each variant; programs and Python's slots need a directory.
for worker in 'worker-1 worker' 'worker-2 worker-slim' 'worker-3 worker-sums'; do
  read -r name image <<<"$worker"
  start "$name" "$image" 512m --tmpfs /tmp --env DIVVY_COORDINATOR=http://coordinator:8081 --env "DIVVY_WORKER_ID=$name"
done
start python-1 python-worker-tasks 512m --tmpfs /tmp --env DIVVY_COORDINATOR=http://coordinator:8081 -- --import=tasks --no-functions

wait_for_workers 'worker-1 worker-2 worker-3'
ask
"$docker" kill --signal KILL "$run-worker-1" >/dev/null
echo 'killed worker-1'
ask
wait_for_workers 'worker-2 worker-3'
gives '{"kind":"program","params":{"program":"sum-integers","range":{"from":0,"to":1000000,"step":250000},"combine":"sum"}}' \
  '"sum":"499999500000"'
gives '{"kind":"tasks","params":{"list":[{"divvy":1,"task":"double","args":[21]}]},"requires":{"labels":{"python-task.double":"yes"}}}' \
  '"tasks":[42]'

for name in python-1 worker-3 worker-2 coordinator; do stop "$name"; done
failed=no
echo 'the images work'
