#!/usr/bin/env python3
"""What the tests need of a Kubernetes API server: TokenReview and PATCH of a pod, over TLS.

api_server.py DIRECTORY ADDRESS: the directory has cert.pem, key.pem and state.json, which is read for each request:
{"own": bearer token, "tokens": {token: {"username": …, "audiences": […]}}, "refuse": status or null}. Each request is a line of
requests.jsonl.
"""

import http.server
import json
import pathlib
import ssl
import sys
import threading

directory, address = pathlib.Path(sys.argv[1]), sys.argv[2]
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.serve("POST")

    def do_PATCH(self):
        self.serve("PATCH")

    def serve(self, method):
        state = json.loads((directory / "state.json").read_text())
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        line = {"method": method, "path": self.path, "type": self.headers["content-type"], "body": body}
        with lock, (directory / "requests.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if self.headers["authorization"] != f"Bearer {state['own']}":
            return self.answer(401, failure("Unauthorized"))
        if state["refuse"]:
            return self.answer(state["refuse"], failure("divvy may not do this"))
        if method == "POST" and self.path == "/apis/authentication.k8s.io/v1/tokenreviews":
            return self.answer(201, body | {"status": review(state, body["spec"])})
        if method == "PATCH" and self.path.startswith("/api/v1/namespaces/divvy/pods/"):
            return self.answer(200, {"apiVersion": "v1", "kind": "Pod", "metadata": body["metadata"]})
        return self.answer(404, failure("not found"))

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def review(state, spec):
    known = state["tokens"].get(spec["token"])
    if known is None:
        return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
    audiences = [audience for audience in spec["audiences"] if audience in known["audiences"]]
    if not audiences:
        return {"user": {}, "error": "token audiences do not match"}
    return {"authenticated": True, "user": {"username": known["username"]}, "audiences": audiences}


def failure(message):
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message}


host, port = address.rsplit(":", 1)
server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
# The handshake is the connection's own thread's: without this one client could hold up all.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(json.dumps({"message": "serving", "port": server.server_port}), file=sys.stderr, flush=True)
server.serve_forever()
