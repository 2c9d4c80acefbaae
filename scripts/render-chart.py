#!/usr/bin/env python3
"""Renders a Helm chart as release `divvy` in namespace `divvy`: render-chart.py CHART [VALUES as JSON].

Uses Helm's Go library as the package helm-python-sdk ships it, which scripts/test.sh installs under target/tools: the helm
command would be built for minutes.
"""

import json
import sys

import helm_python

chart, values = sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")
try:
    with helm_python.Chart.load(chart) as loaded:
        manifests = loaded.render(values, name="divvy", namespace="divvy")
except helm_python.HelmError as error:
    sys.exit(f"error: {error}")
for text in manifests.values():
    if text.strip():
        print(f"---\n{text}")
