#!/usr/bin/env python3
"""Takes spans by OTLP over HTTP and appends each request's body to a file: collector.py ADDRESS PORT FILE.

Names of spans are plain text in the protobuf, so that the file can be searched for them.
"""

import http.server
import sys

address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        with open(path, "ab") as file:
            file.write(body)
        # An empty ExportTraceServiceResponse.
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()


http.server.ThreadingHTTPServer((address, port), Collector).serve_forever()
