"""The models are those of the coordinator's description."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from pathlib import Path
from typing import Any

from divvy import models

from .helpers import DEADLINE, SDK, Coordinator


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_models", SDK / "tools" / "generate_models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_what_the_description_says(grid: Coordinator) -> None:
    with urllib.request.urlopen(f"{grid.url}/openapi.json", timeout=DEADLINE) as answer:
        expected = generator().generate(json.load(answer))
    written = Path(models.__file__).read_text()
    assert written == expected, "run sdk/python/tools/generate_models.py against the coordinator"
