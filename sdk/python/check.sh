#!/usr/bin/env bash
# Checks the Python SDK: format, lints, types, the wheel in an empty environment, and the tests, which start real services
# from target/debug. Tools come from PyPI, at these versions, into target/python-venv. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")"

TOOLS=(
  aiohttp==3.14.5 cloudpickle==3.1.3 hatchling==1.33.0 ipykernel==7.3.0 mypy==2.4.1 nbclient==0.11.0 pytest==9.2.0
  pyyaml==6.0.4 ruff==0.17.6
)

step() { printf '\n== Python: %s\n' "$*"; }

python=${PYTHON:-python3}
target=$(cd ../.. && pwd)/target
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$target/python-venv-$version
coordinator=${DIVVY_COORDINATOR_BINARY:-$target/debug/divvy-coordinator}
if [ ! -x "$coordinator" ]; then
  echo "there is no $coordinator: run cargo build -p coordinator" >&2
  exit 1
fi

step "tools for Python $version"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "${TOOLS[@]}"

step 'format, lints, types'
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/mypy"

step 'wheel'
dist=$(mktemp -d)
trap 'rm -rf "$dist"' EXIT
"$venv/bin/pip" wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir "$dist" .
"$python" -m venv "$dist/empty"
"$dist/empty/bin/pip" install --quiet --disable-pip-version-check "$dist"/divvy-*.whl
"$dist/empty/bin/python" - <<'EOF'
import importlib.util, pathlib, divvy
assert importlib.util.find_spec("cloudpickle") is None and importlib.util.find_spec("aiohttp") is None
assert (pathlib.Path(divvy.__file__).parent / "py.typed").exists()
divvy.Client("http://localhost").close()
EOF
test -x "$dist/empty/bin/divvy-python-worker"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$dist"/divvy-*.whl

step 'tests'
DIVVY_COORDINATOR_BINARY=$coordinator "$venv/bin/python" -m pytest --quiet "$@"
