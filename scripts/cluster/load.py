#!/usr/bin/env python3
"""Asks a grid at a fixed rate, a new connection each, until SIGTERM: load.py URL RATE REPORT.

Requests leave on schedule whatever the answers do. REPORT gets one line of JSON: sent, failed, the longest wait for a right
answer in seconds, and what failed how often. Over https SSL_CERT_FILE names the authority.
"""

import collections
import http.client
import json
import signal
import sys
import threading
import time
import urllib.parse

TARGET = "/sum-of-primes?a=10&b=3700000"
ANSWER = "468476582935"
TIMEOUT_SECONDS = 30
MOST_AT_ONCE = 600

url, rate, report = urllib.parse.urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
lock, stopped = threading.Lock(), threading.Event()
places = threading.Semaphore(MOST_AT_ONCE)
sent, longest, failures = 0, 0.0, collections.Counter()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())


def ask() -> None:
    global longest
    asked_at = time.monotonic()
    try:
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
        connection.request("GET", TARGET, headers={"connection": "close"})
        response = connection.getresponse()
        body = response.read().decode()
        failure = None if response.status == 200 and ANSWER in body else f"status {response.status}"
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        failure = type(error).__name__
    finally:
        places.release()
    with lock:
        if failure is None:
            longest = max(longest, time.monotonic() - asked_at)
        else:
            failures[failure] += 1


threads, next_at = [], time.monotonic()
while not stopped.is_set():
    if places.acquire(blocking=False):
        threads.append(threading.Thread(target=ask, daemon=True))
        threads[-1].start()
    else:
        with lock:
            failures["no place for another request"] += 1
    sent += 1
    next_at += 1 / rate
    stopped.wait(max(0.0, next_at - time.monotonic()))
deadline = time.monotonic() + TIMEOUT_SECONDS + 1
for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))
with open(report, "w") as file:
    json.dump({"sent": sent, "failed": sum(failures.values()), "longest": round(longest, 2), "failures": failures}, file)
