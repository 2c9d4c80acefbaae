#!/usr/bin/env bash
# Checks the Python SDK: format, lints, types, the wheel in an empty environment, and the tests, which start real services
# from target/debug; then the tests of calls, clients and workers with every other supported Python that is found, on PATH
# or of pyenv. Tools come from PyPI, at these versions, into target/python-venv-VERSION. PYTHON names another interpreter
# for the first part, PYTHONS the versions of the second part. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"

RUN=(aiohttp==3.14.5 cloudpickle==3.1.3 pytest==9.2.0)
TOOLS=(
  "${RUN[@]}" hatchling==1.33.0 ipykernel==7.3.0 mypy==2.4.1 nbclient==0.11.0 nbconvert==7.17.2 numpy==2.4.6
  pyyaml==6.0.4 ruff==0.17.6
)
CORE=(submit cancel collector map shutdown fork initializer client async connections addresses admission versions kills reports board sent slot)

# The tests of one interpreter take a fraction of this time, also on a busy machine: one that hangs is ended.
CORE_SECONDS=1800

core=()
for name in "${CORE[@]}"; do core+=("tests/test_$name.py"); done

step() { printf '\n== Python: %s\n' "$*"; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The interpreter of a version that runs: a shim of pyenv may be there without its version.
interpreter() {
  local candidate
  for candidate in $(type -ap "python$1") "$HOME"/.pyenv/versions/"$1".*/bin/python; do
    if [ -x "$candidate" ] && [ "$(version_of "$candidate")" = "$1" ]; then echo "$candidate" && return; fi
  done
}

pip_of() { "$1/bin/python" -m pip --quiet --disable-pip-version-check "${@:2}"; }

python=${PYTHON:-python3}
target=$(cd ../.. && pwd)/target
version=$(version_of "$python")
venv=$target/python-venv-$version
export DIVVY_COORDINATOR_BINARY=${DIVVY_COORDINATOR_BINARY:-$target/debug/divvy-coordinator}
for binary in "$DIVVY_COORDINATOR_BINARY" "${DIVVY_BINARY:-$target/debug/divvy}"; do
  [ -x "$binary" ] || { echo "there is no $binary: run cargo build -p coordinator -p divvy" >&2; exit 1; }
done

step "tools for Python $version"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip_of "$venv" install "${TOOLS[@]}"
# A notebook is looked at in the browser of e2e/browser, with the modules that its check has fetched.
export BROWSER_MODULES=${BROWSER_MODULES:-$target/browser}
if ! [ -d "$BROWSER_MODULES/node_modules/playwright-core" ]; then
  pinned() { sed -n "s/^$1=//p" ../../e2e/browser/check.sh; }
  mkdir -p "$BROWSER_MODULES"
  [ -f "$BROWSER_MODULES/package.json" ] || echo '{"private": true}' > "$BROWSER_MODULES/package.json"
  npm install --prefix "$BROWSER_MODULES" --no-audit --no-fund --silent --save-exact \
    "playwright-core@$(pinned PLAYWRIGHT_VERSION)" "axe-core@$(pinned AXE_VERSION)"
fi

step 'format, lints, types'
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/mypy"

step 'wheel'
dist=$(mktemp -d)
trap 'rm -rf "$dist"' EXIT
pip_of "$venv" wheel --no-build-isolation --no-deps --wheel-dir "$dist" .
"$python" -m venv "$dist/empty"
pip_of "$dist/empty" install "$dist"/divvy-*.whl
"$dist/empty/bin/python" - <<'PYTHON'
import importlib.util, pathlib, divvy
assert importlib.util.find_spec("cloudpickle") is None and importlib.util.find_spec("aiohttp") is None
assert (pathlib.Path(divvy.__file__).parent / "py.typed").exists()
divvy.Client("http://localhost").close()
PYTHON
test -x "$dist/empty/bin/divvy-python-worker"
"$venv/bin/mypy" --config-file= --strict --cache-dir=/dev/null --python-executable "$dist/empty/bin/python" tests/typed_program.py
pip_of "$venv" install --no-deps --force-reinstall "$dist"/divvy-*.whl

step "tests, Python $version"
"$venv/bin/python" -m pytest --quiet "$@"

for other in ${PYTHONS-3.10 3.11 3.12 3.13 3.14}; do
  found=$(interpreter "$other")
  if [ "$other" = "$version" ]; then continue; fi
  if [ -z "$found" ]; then echo "not tested with Python $other: it is not installed"; continue; fi
  step "core of the tests, Python $other"
  venv=$target/python-venv-$other
  [ -x "$venv/bin/python" ] || "$found" -m venv "$venv"
  pip_of "$venv" install "${RUN[@]}"
  pip_of "$venv" install --no-deps --force-reinstall "$dist"/divvy-*.whl
  timeout --foreground "$CORE_SECONDS" "$venv/bin/python" -m pytest --quiet "$@" "${core[@]}"
done
