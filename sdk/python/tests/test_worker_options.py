"""The options of the worker and its variables, before anything starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from divvy.worker.cli import configure, main
from divvy.worker.variables import _KNOWN, unknown_variables

from .helpers import ROOT


def test_a_label_is_written_with_an_equals_sign_or_a_colon() -> None:
    config = configure(["--label", "zone=a:b", "--label", "gpu:x=y"])
    assert config.labels == {"zone": "a:b", "gpu": "x=y"}


def test_a_label_without_a_value_is_left_out() -> None:
    assert configure(["--label", "zone=", "--label", "gpu=x"]).labels == {"gpu": "x"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--label", "zone"], "give KEY=VALUE or KEY:VALUE"),
        (["--label", "=a"], "give KEY=VALUE or KEY:VALUE"),
        (["--label", "a=1", "--label", "a=2"], "--label gives a key twice: give each once"),
        (["--slots", "0"], "--slots must be from 1 to 1024"),
        (["--slots", "100000"], "--slots must be from 1 to 1024"),
        (["--memory-per-slot", "0"], "'0' is no size such as 512MiB"),
        (["--memory-per-slot", "9999999999GiB"], "'9999999999GiB' is no size such as 512MiB"),
        (["--memory-per-slot", "1GB"], "'1GB' is no size such as 512MiB"),
        (["--drain-timeout", "nan"], "give seconds from 0 to 604800"),
        (["--drain-timeout", "-1"], "give seconds from 0 to 604800"),
    ],
)
def test_wrong_usage_is_told_with_what_is_allowed(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        configure(options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_help_names_every_variable_that_the_package_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        configure(["--help"])
    shown = capsys.readouterr().out
    of_clients = {"DIVVY_TOKEN", "DIVVY_URL", "DIVVY_MAX_JOB_BYTES"}
    sources = (ROOT / "sdk" / "python" / "src" / "divvy").rglob("*.py")
    read = {name for source in sources for name in re.findall(r"DIVVY_[A-Z_]+", source.read_text())}
    assert {name for name in read - of_clients if name not in shown} == set()


def test_a_module_that_raises_is_named_with_what_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raises_at_import.py").write_text("int('seven')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        configure(["--import", "raises_at_import"])
    assert ended.value.code == 2
    assert "--import raises_at_import: ValueError: invalid literal" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["DIVVY_SLOTS", "DIVVY_DRAIN_TIMEOUT_MS"])
def test_a_wrong_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "many")
    with pytest.raises(SystemExit, match=f"{name} is not valid: it must be a whole number, but is 'many'"):
        main([])


def test_the_known_variables_are_those_of_the_documentation() -> None:
    documented = set(re.findall(r"DIVVY_[A-Z_]+", (ROOT / "docs" / "configuration.md").read_text()))
    assert unknown_variables(dict.fromkeys(documented, "1")) == []
    assert {f"DIVVY_{name}" for name in _KNOWN} == documented


def test_variables_that_kubernetes_sets_for_services_are_no_misspelt_ones() -> None:
    links = {
        "DIVVY_COORDINATOR_SERVICE_HOST": "10.0.0.1",
        "DIVVY_COORDINATOR_SERVICE_PORT_HTTP": "80",
        "DIVVY_COORDINATOR_PORT": "tcp://10.0.0.1:80",
        "DIVVY_COORDINATOR_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    environment = {**links, "DIVVY_PORT": "8080", "DIVVY_FOO": "1", "PATH": "/"}
    assert unknown_variables(environment) == ["DIVVY_FOO", "DIVVY_PORT"]
