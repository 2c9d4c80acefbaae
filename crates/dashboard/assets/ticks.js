"use strict";
// One event stream for all tabs of a browser: a shared worker, or a worker of the tab where there are none. It tells every port
// whether the coordinator is reachable, or demands a token first, and the present versions of its pages, separated by spaces.

/** A stream without a tick for so long is taken for broken. */
const SILENCE_MS = 5000;
const RETRY_MS = 1500;

/** Nothing is known until the stream's first tick, or its first error. */
const OPENING = { is: "opening", version: "" };

const ports = new Set();
let state = OPENING;
let source = null;
let timer = 0;

function tell(next) {
  state = next;
  for (const port of ports) port.postMessage(state);
}

/** Whether the coordinator is there and wants a token first. */
async function isSignedOut() {
  try {
    const response = await fetch("/jobs/states", { cache: "no-store", redirect: "manual" });
    return response.type === "opaqueredirect";
  } catch {
    return false;
  }
}

async function lose() {
  source?.close();
  source = null;
  clearTimeout(timer);
  if (state.is === "live" || state.is === "opening") tell({ ...state, is: "lost" });
  if (ports.size > 0) timer = setTimeout(open, RETRY_MS);
  const is = (await isSignedOut()) ? "out" : "lost";
  if (ports.size > 0 && state.is !== "live" && state.is !== is) tell({ ...state, is });
}

function expectMore() {
  clearTimeout(timer);
  timer = setTimeout(lose, SILENCE_MS);
}

function open() {
  source?.close();
  source = new EventSource("/live");
  source.addEventListener("tick", (event) => {
    expectMore();
    tell({ is: "live", version: event.data });
  });
  source.addEventListener("error", lose);
  expectMore();
}

function leave(port) {
  ports.delete(port);
  if (ports.size > 0) return;
  source?.close();
  source = null;
  clearTimeout(timer);
  state = OPENING;
}

function join(port) {
  ports.add(port);
  port.onmessage = (event) => {
    if (event.data === "leave") leave(port);
  };
  port.postMessage(state);
  if (source === null) open();
}

if ("onconnect" in self) {
  self.onconnect = (event) => join(event.ports[0]);
} else {
  join(self);
}
