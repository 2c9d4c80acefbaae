// A real grid, a real browser, and waiting for conditions instead of for time.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";

const modules = process.env.BROWSER_MODULES;
assert.ok(modules, "BROWSER_MODULES is not set: run e2e/browser/check.sh");
const require = createRequire(path.join(modules, "package.json"));
const { chromium } = require("playwright-core");

export const AXE = require.resolve("axe-core/axe.min.js");
export const DIVVY = process.env.BROWSER_DIVVY ?? path.resolve("target/debug/divvy");

/** A loopback address that no other process uses: its free ports stay free, while another process may take those of 127.0.0.1. */
export const HOST = `127.1.${(process.pid >> 8) & 0xff}.${process.pid & 0xff}`;

/** The longest that a condition is waited for: much longer than it takes on a busy machine. */
export const PATIENCE_MS = 60_000;

const CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"].concat(
  ["--disable-background-networking", "--disable-component-update", "--disable-sync"],
);

/** A browser with a fresh profile. A test that misses Chromium says so. */
export async function startBrowser() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, headless: true, args: CHROMIUM_ARGUMENTS, timeout: PATIENCE_MS });
}

export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < deadline, `it did not happen: ${what}`);
    await new Promise((resume) => setTimeout(resume, 50));
  }
}

/** `divvy up` on loopback ports, ended by its pid. It starts again on its public port. */
export class Grid {
  static async start(options) {
    const grid = new Grid();
    await grid.begin(() => options);
    return grid;
  }

  /** Starts it as `prepare` says, which gets the directory that goes when the grid is stopped. */
  async begin(prepare) {
    this.directory = await mkdtemp(path.join(tmpdir(), "divvy-browser-"));
    const { workers = 2, environment = {} } = (await prepare(this.directory)) ?? {};
    this.options = { workers, environment };
    await this.run(0);
  }

  async run(port) {
    const { workers, environment } = this.options;
    const data = path.join(this.directory, "data");
    const options = ["up", "--host", HOST, "--port", String(port), "--workers", String(workers), "--data-dir", data];
    const env = { ...process.env, DIVVY_LOG: "warn", ...environment };
    this.process = spawn(DIVVY, options, { env, stdio: ["ignore", "pipe", "pipe"] });
    let told = "";
    this.process.stderr.on("data", (text) => {
      if (!told.includes("\n")) told += text;
      process.stderr.write(text);
    });
    this.process.on("error", (error) => assert.fail(`${DIVVY} does not start: ${error.message}`));
    let printed = "";
    this.process.stdout.on("data", (text) => (printed += text));
    await until("the grid prints its address", () => printed.includes("\n") || this.process.exitCode !== null);
    assert.equal(this.process.exitCode, null, "the grid ended");
    this.url = printed.trim();
    this.port = Number(new URL(this.url).port);
    this.internal = await until("the grid prints where workers ask", () => /workers of your own: (http:\S+)/.exec(told)?.[1]);
  }

  async kill(signal = "SIGTERM") {
    if (this.process === undefined || this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.kill(signal);
    await ended;
  }

  /** Kills it and starts another one on its data and its port. */
  async restart() {
    await this.kill("SIGKILL");
    await this.run(this.port);
  }

  async stop() {
    await this.kill();
    if (this.directory !== undefined) await rm(this.directory, { recursive: true, force: true });
  }

  async call(method, target, body, headers = {}) {
    const init = { method, headers: { ...headers } };
    if (body !== undefined) {
      init.headers["content-type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    return fetch(this.url + target, init);
  }

  async submit(job, headers) {
    const response = await this.call("POST", "/v1/jobs", job, headers);
    assert.equal(response.status, 201, await response.clone().text());
    return response.json();
  }

  async job(id) {
    return (await this.call("GET", `/v1/jobs/${id}`)).json();
  }

  /** Fetches tasks as a worker that pulls, waiting for some. */
  async claim(worker, more = {}) {
    const claim = { worker_id: worker, kinds: ["tasks"], wait_seconds: 30, ...more };
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${this.internal}/v1/worker/claim`, { method: "POST", headers, body: JSON.stringify(claim) });
    if (response.status === 204) return null;
    assert.equal(response.status, 200, await response.clone().text());
    return response.json();
  }

  /** Reports of a claim: `complete` or `fail`. */
  async report(claimed, how, body) {
    const headers = { "content-type": "application/json" };
    const url = `${this.internal}/v1/worker/tasks/${claimed.attempt}/${how}`;
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    assert.equal(response.status, 204, await response.clone().text());
  }

  async ended(id) {
    return until(`job ${id} ends`, async () => {
      const job = await this.job(id);
      return ["succeeded", "failed", "canceled"].includes(job.state) ? job : null;
    });
  }
}

export async function tokensFile(directory, entries) {
  const file = path.join(directory, "tokens.toml");
  await writeFile(file, "");
  const tokens = {};
  for (const [name, rights] of Object.entries(entries)) {
    const child = spawn(DIVVY, ["token", "new", "--file", file, "--rights", rights, name], { stdio: ["ignore", "pipe", "inherit"] });
    let printed = "";
    child.stdout.on("data", (text) => (printed += text));
    const [code] = await once(child, "exit");
    assert.equal(code, 0, "divvy token new");
    tokens[name] = printed.trim();
  }
  return { file, tokens };
}

/** What a page says that it must not: errors of scripts, of the policy, of the network. */
export function collectErrors(page) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  return errors;
}

/** The violations that axe finds. Its source is run by the browser's own protocol, which no policy of the page stops. */
export async function axe(page) {
  const { readFile } = await import("node:fs/promises");
  await page.evaluate(await readFile(AXE, "utf8"));
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return result.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}
