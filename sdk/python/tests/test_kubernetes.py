"""The component of Python workers, as kustomize puts it together."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from divvy.worker.cli import parser

from .helpers import ROOT


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything of the grid with the component."""
    # Where kubectl is too old, scripts/test.sh has built kustomize.
    built = ROOT / "target" / "tools" / "bin" / "kustomize"
    kustomize = [str(built), "build"] if built.exists() else ["kubectl", "kustomize"]
    if shutil.which(kustomize[0]) is None:
        pytest.fail("kubectl is not installed: apt-get install kubernetes-client (scripts/test.sh does so)")
    overlay = tmp_path_factory.mktemp("overlay")
    up = Path(*[".."] * (len(overlay.parts) - 1))
    text = json.dumps(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(up / ROOT.relative_to("/") / "k8s")],
            "components": [str(up / ROOT.relative_to("/") / "k8s" / "components" / "python-workers")],
        }
    )
    (overlay / "kustomization.yaml").write_text(text)
    command = [*kustomize, str(overlay), "-o", str(overlay / "out.yaml")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    import yaml

    return list(yaml.safe_load_all((overlay / "out.yaml").read_text()))


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def test_the_deployment_s_pods_are_locked_down_and_start_as_the_worker_takes_it(objects: list[dict[str, Any]]) -> None:
    pod = one(objects, "Deployment", "divvy-python-worker")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "divvy-python-worker:0.1.0"
    options = parser().parse_args(container["args"])
    assert options.memory_per_slot == 768 << 20
    assert options.labels == [("node", "$(NODE)"), ("zone", "$(ZONE)")]
    # Addresses come again: a worker of a new pod would be taken for the one before it, with its drain and its labels.
    fields = {each["name"]: each["valueFrom"].get("fieldRef") for each in container["env"] if "valueFrom" in each}
    assert fields["DIVVY_WORKER_ID"]["fieldPath"] == "metadata.name"
    assert fields["NODE"]["fieldPath"] == "spec.nodeName"
    assert fields["ZONE"]["fieldPath"] == "metadata.labels['topology.kubernetes.io/zone']"
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    drain_ms = next(int(entry["value"]) for entry in container["env"] if entry["name"] == "DIVVY_DRAIN_TIMEOUT_MS")
    assert drain_ms / 1000 < pod["terminationGracePeriodSeconds"]
    services = [each["metadata"]["name"] for each in objects if each["kind"] == "Service"]
    address = next(entry["value"] for entry in container["env"] if entry["name"] == "DIVVY_COORDINATOR")
    assert address.removeprefix("http://").removesuffix(":8081") in services


def test_python_workers_reach_the_coordinator_and_nothing_reaches_them(objects: list[dict[str, Any]]) -> None:
    template = one(objects, "Deployment", "divvy-python-worker")["spec"]["template"]["metadata"]["labels"]
    own = one(objects, "NetworkPolicy", "divvy-python-worker")["spec"]
    assert own["podSelector"]["matchLabels"].items() <= template.items()
    assert set(own["policyTypes"]) == {"Ingress", "Egress"} and not own.get("ingress")
    coordinator = one(objects, "StatefulSet", "divvy-coordinator")["spec"]["template"]["metadata"]["labels"]
    assert own["egress"][0]["to"][0]["podSelector"]["matchLabels"].items() <= coordinator.items()
    lets_in = one(objects, "NetworkPolicy", "divvy-coordinator-from-python-workers")["spec"]
    assert lets_in["podSelector"]["matchLabels"].items() <= coordinator.items()
    assert lets_in["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= template.items()
    assert [port["port"] for port in lets_in["ingress"][0]["ports"]] == [8081]
