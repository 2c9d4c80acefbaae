#!/usr/bin/env python3
"""Runs test binaries and other checks side by side, and fails if one of them does.

    cargo test --workspace --no-run --message-format=json >BUILD
    scripts/side-by-side.py BUILD <PLAN

A line of the plan is `LANE: COMMAND`. Lanes run side by side, the lines of a lane one after another. A command is a line of
shell, or `test PACKAGE/TARGET [ARGUMENTS]`: a test binary of the build, run as by `cargo test` in the directory of its
package. `test * [ARGUMENTS]` stands for every binary that no other line names, so that none is left out.

The output of a command is printed whole when it ends, with its time and its processor time. A failure stops nothing else: all
failures are named at the end, with the last lines of their output. A command that takes longer than TEST_SECONDS (3600) is
ended and has failed.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

LOOK_SECONDS = 0.1
# Lines of a failed command that are printed again at the end.
LAST_LINES = 150
# From SIGTERM to SIGKILL.
GRACE_SECONDS = 5.0


class Command:
    """A line of the plan."""

    def __init__(self, name, arguments, directory):
        self.name, self.arguments, self.directory = name, arguments, directory

    def start(self):
        """Starts it in a process group of its own, with its output in a file."""
        self.output = tempfile.TemporaryFile()
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.arguments,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        print(f"-- {self.name}: started", flush=True)

    def look(self, longest):
        """Whether it has ended: None before that. It is ended when it takes too long."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        took = time.monotonic() - self.started_at
        if pid:
            self.process.returncode = os.waitstatus_to_exitcode(status)
            computed = usage.ru_utime + usage.ru_stime
            end = f"FAILED with {self.process.returncode}" if status else "passed"
            self.show(f"{end} after {took:.0f} s, {computed:.0f} s of processor time")
            return status == 0
        if took > longest:
            self.stop()
            self.show(f"FAILED, stopped after {took:.0f} s")
            return False
        return None

    def stop(self):
        """Ends it and what it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                try:
                    self.process.wait(GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    pass

    def show(self, end):
        """Prints the end of the command and its output, and keeps the last lines of the output."""
        print(f"\n== {self.name}: {end}", flush=True)
        self.output.seek(0)
        last = deque(maxlen=LAST_LINES)
        for line in self.output:
            sys.stdout.buffer.write(line)
            last.append(line)
        sys.stdout.flush()
        self.output.close()
        self.last = b"".join(last).decode(errors="replace")


def read_build(path):
    """The path and the directory of each test binary that cargo's messages list."""
    built = {}
    for line in Path(path).read_text().splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
            continue
        directory, target = Path(message["manifest_path"]).parent, message["target"]
        # A package, its program and a test may have one name.
        name = target["name"] if target["kind"] == ["test"] else f"src:{Path(target['src_path']).stem}"
        key = f"{directory.name}/{name}"
        if key in built:
            sys.exit(f"two test binaries are called {key}")
        built[key] = (message["executable"], directory)
    return dict(sorted(built.items()))


def read_plan(lines, built):
    """The commands of each lane."""
    lanes, left, rest = {}, dict(built), None
    for line in filter(None, map(str.strip, lines)):
        lane, text = (part.strip() for part in line.split(":", 1))
        commands, words = lanes.setdefault(lane, []), shlex.split(text)
        if words[:2] == ["test", "*"]:
            rest = (commands, len(commands), words[2:])
        elif words[0] != "test":
            commands.append(Command(text, ["bash", "-c", text], None))
        elif words[1] in left:
            commands.append(of_binary(words[1], left.pop(words[1]), words[2:]))
        else:
            sys.exit(f"{words[1]} was not built or is named twice; there are: {', '.join(built)}")
    if rest is None:
        sys.exit("no line of the plan has `test *`")
    commands, place, arguments = rest
    commands[place:place] = [of_binary(name, binary, arguments) for name, binary in left.items()]
    return lanes


def of_binary(name, binary, arguments):
    """The command of a test binary."""
    path, directory = binary
    return Command(" ".join([name, *arguments]), [path, *arguments], directory)


def run(lanes, longest):
    """Runs all lanes to their end. Returns the commands that failed."""
    running, failed = {}, []
    try:
        while lanes or running:
            for lane in [lane for lane in lanes if lane not in running]:
                if lanes[lane]:
                    running[lane] = lanes[lane].pop(0)
                    running[lane].start()
                else:
                    del lanes[lane]
            time.sleep(LOOK_SECONDS)
            for lane, command in list(running.items()):
                has_passed = command.look(longest)
                if has_passed is not None:
                    del running[lane]
                if has_passed is False:
                    failed.append(command)
    finally:
        for command in running.values():
            command.stop()
    return failed


def main():
    """Reads the plan and runs it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    # A shell without job control lets what it starts in the background ignore Ctrl-C. Tests press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lanes = read_plan(sys.stdin.read().splitlines(), read_build(sys.argv[1]))
    failed = run(lanes, float(os.environ.get("TEST_SECONDS", "3600")))
    for command in failed:
        print(f"\n== {command.name}: the end of its output\n{command.last}", flush=True)
    if failed:
        sys.exit("\n".join(["", "FAILED:", *(command.name for command in failed)]))


main()
