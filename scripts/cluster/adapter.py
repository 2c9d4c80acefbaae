#!/usr/bin/env python3
"""An adapter for external metrics whose value is in a file: adapter.py ADDRESS PORT CERTIFICATE KEY FILE.

It answers for `divvy_wanted_slots_by_kind` alone, and only to a question that leaves the kind `tasks` out.
"""

import datetime
import http.server
import json
import ssl
import sys
import urllib.parse

address, port, certificate, key, path = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
NAMED = {"groupVersion": VERSION, "version": "v1beta1"}
GROUP_ANSWER = {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [NAMED], "preferredVersion": NAMED}
RESOURCE = {"name": "externalmetrics", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
METRIC = "divvy_wanted_slots_by_kind"


def values() -> dict:
    with open(path) as file:
        value = file.read().strip()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {"metricName": METRIC, "metricLabels": {}, "timestamp": now, "value": value}
    return {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [item]}


def answer(target: str) -> dict | None:
    """The answer to a path with its query; None where there is nothing."""
    asked = urllib.parse.urlsplit(target)
    parts = asked.path.strip("/").split("/")
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [GROUP_ANSWER]}
    if parts == ["apis", GROUP]:
        return GROUP_ANSWER
    if parts == ["apis", GROUP, "v1beta1"]:
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [RESOURCE]}
    selector = urllib.parse.parse_qs(asked.query).get("labelSelector", [""])[0].replace(" ", "")
    if parts[:4] == ["apis", GROUP, "v1beta1", "namespaces"] and parts[5:] == [METRIC] and selector == "kindnotin(tasks)":
        return values()
    return None


class Adapter(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = answer(self.path)
        body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer((address, port), Adapter)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
