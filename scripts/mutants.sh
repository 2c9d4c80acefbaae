# Shared by the scripts try-*mutants.sh, which source it: plants bugs, one at a time in a copy of the sources, and looks for each.
# A script calls prepare, then mutant for each bug, then report, and defines these functions, which run in the copy:
#   build         compiles whatever look needs
#   look          fails if it finds a bug
#   found_by LOG  prints what in the output of look has found it
# With names as arguments only those bugs are planted. With ONLY_PLANT=1 nothing is compiled: the script shows in a second that
# each bug still changes the line that it is meant for.

wanted=()
missed=()
stale=()

# The name of the directory below target/, and the script's arguments.
prepare() {
  WORK=target/$1
  COPY=$WORK/sources
  shift
  wanted=("$@")
  if [ -n "${ONLY_PLANT:-}" ]; then return; fi
  export CARGO_TARGET_DIR="$PWD/$WORK/target"
  export PROPTEST_FAILURE_PERSISTENCE=off RUST_BACKTRACE=0 RUSTFLAGS='--cap-lints allow'
  rm -rf "$COPY"
  mkdir -p "$COPY"
  git ls-files -z | xargs -0 cp --no-dereference --parents -t "$COPY"
  in_copy build > "$WORK/unchanged.log" 2>&1 && in_copy look >> "$WORK/unchanged.log" 2>&1 || {
    echo "a bug is found where none is planted, see $WORK/unchanged.log" >&2
    exit 2
  }
}

in_copy() (cd "$COPY" && "$@")

# Name, file, sed script.
mutant() {
  local name=$1 source=$2 script=$3
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  if cmp -s "$source" <(sed -E "$script" "$source"); then
    stale+=("$name")
    return
  fi
  if [ -n "${ONLY_PLANT:-}" ]; then return; fi
  local output=$WORK/$name.log
  sed -E "$script" "$source" > "$COPY/$source"
  if ! in_copy build > "$output" 2>&1; then
    echo "$name: does not compile, see $output" >&2
    exit 2
  fi
  if in_copy look >> "$output" 2>&1; then
    missed+=("$name")
    printf '%-42s NOT FOUND\n' "$name"
  else
    printf '%-42s found by %s\n' "$name" "$(found_by "$output")"
  fi
  cp "$source" "$COPY/$source"
}

report() {
  if [ ${#stale[@]} -gt 0 ]; then
    echo "the line to change is not there any more: ${stale[*]}" >&2
    exit 2
  fi
  if [ ${#missed[@]} -gt 0 ]; then
    echo "not found: ${missed[*]}" >&2
    exit 1
  fi
}

# The name of the simulated seed or else the test that has found the bug, from the output of both.
found_by_seed_or_test() {
  grep -m1 -E 'fails at step|does not come to its end' "$1" | cut -c1-110 | grep . || sed -nE 's/^    ([a-z_:]+)$/\1/p' "$1" | sed -n 1p
}
