// A PostgreSQL of Debian's package in a directory of its own, and coordinators that share it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chown, mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

import { DIVVY, HOST, until } from "./helpers.mjs";

/** Debian's `nobody` and `nogroup`: the server refuses root. */
const NOBODY = 65_534;
const VERSIONS = "/usr/lib/postgresql";

/** Ends the server and removes its directory when its input ends: when the test's process has ended, however it did. */
const GUARD = `cat >/dev/null; kill -INT $1 2>/dev/null
for i in $(seq 100); do kill -0 $1 2>/dev/null || break; sleep 0.1; done
kill -KILL $1 2>/dev/null; rm -rf "$2"`;

async function programs() {
  const versions = existsSync(VERSIONS) ? await readdir(VERSIONS) : [];
  const found = versions.filter((version) => existsSync(path.join(VERSIONS, version, "bin/postgres")));
  assert.ok(found.length > 0, "PostgreSQL is not installed: apt-get install postgresql (scripts/test.sh does so)");
  return path.join(VERSIONS, found.sort((one, other) => Number(one) - Number(other)).at(-1), "bin");
}

async function freePort() {
  const server = createServer().listen(0, HOST);
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const isOver = (child) => child.exitCode !== null || child.signalCode !== null;

async function end(child, signal) {
  if (isOver(child)) return;
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}

export class Postgres {
  static async start() {
    const server = new Postgres();
    server.directory = await mkdtemp(path.join(tmpdir(), "divvy-postgres-"));
    if (process.geteuid() === 0) await chown(server.directory, NOBODY, NOBODY);
    server.programs = await programs();
    const data = path.join(server.directory, "data");
    await server.succeed("initdb", ["-D", data, "-A", "trust", "-U", "divvy", "--no-sync", "-E", "UTF8"]);
    server.port = await freePort();
    const settings = [`listen_addresses=${HOST}`, `unix_socket_directories=${data}`, "fsync=off"];
    server.process = server.spawn("postgres", ["-D", data, "-p", String(server.port), ...settings.flatMap((setting) => ["-c", setting])]);
    // A signal to the test's group is not for the guard.
    const guarded = ["-c", GUARD, "guard", String(server.process.pid), server.directory];
    server.guard = spawn("sh", guarded, { detached: true, stdio: ["pipe", "ignore", "ignore"] });
    await until("PostgreSQL answers", async () => {
      assert.ok(!isOver(server.process), "PostgreSQL ended");
      const [code] = await once(server.spawn("pg_isready", ["-h", HOST, "-q", "-p", String(server.port)]), "exit");
      return code === 0;
    });
    return server;
  }

  /** Makes a database, and returns its URL. */
  async url(database) {
    const options = ["-h", HOST, "-p", String(this.port), "-U", "divvy", "-X", "-q", "-v", "ON_ERROR_STOP=1"];
    await this.succeed("psql", [...options, "-d", "postgres", "-c", `CREATE DATABASE ${database}`]);
    return `postgres://divvy@${HOST}:${this.port}/${database}?sslmode=disable`;
  }

  /** Ends it; the guard removes its directory. */
  async stop() {
    await end(this.process, "SIGINT");
    const removed = once(this.guard, "exit");
    this.guard.stdin.end();
    await removed;
  }

  spawn(program, options) {
    const own = path.join(this.programs, program);
    const stdio = ["ignore", "ignore", "ignore"];
    if (process.geteuid() !== 0) return spawn(own, options, { stdio });
    return spawn("setpriv", ["--reuid=nobody", "--regid=nogroup", "--clear-groups", own, ...options], { stdio });
  }

  async succeed(program, options) {
    const [code] = await once(this.spawn(program, options), "exit");
    assert.equal(code, 0, `${program} ${options.join(" ")}`);
  }
}

/** A service of the grid on loopback ports. `said` waits for a line of its log, which is JSON. */
class Service {
  constructor(name, environment) {
    const env = { ...process.env, DIVVY_LOG: "info", DIVVY_LOG_FORMAT: "json", ...environment };
    const binary = path.join(path.dirname(DIVVY), name);
    this.process = spawn(binary, [], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.process.on("error", (error) => assert.fail(`${binary} does not start: ${error.message}`));
    this.name = name;
    this.serving = null;
    for (const stream of [this.process.stdout, this.process.stderr]) {
      let rest = "";
      stream.on("data", (text) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line.includes('"serving"')) this.serving ??= JSON.parse(line);
      });
    }
  }

  async isServing() {
    return until(`${this.name} serves`, () => {
      assert.ok(!isOver(this.process), `${this.name} ended`);
      return this.serving;
    });
  }

  kill = () => end(this.process, "SIGKILL");
  stop = () => end(this.process, "SIGTERM");
}

/** Coordinators over one database, and a worker of theirs. */
export class Group {
  static async start(count, databaseUrl, directory) {
    const group = new Group();
    group.coordinators = [];
    for (let number = 1; number <= count; number += 1) {
      const coordinator = new Service("divvy-coordinator", {
        DIVVY_COORDINATOR_ID: `coordinator-${number}`,
        DIVVY_PUBLIC_ADDR: "127.0.0.1:0",
        DIVVY_INTERNAL_ADDR: "127.0.0.1:0",
        DIVVY_STORE_URL: databaseUrl,
        DIVVY_RESULTS_URL: `file://${path.join(directory, "results")}`,
      });
      group.coordinators.push(coordinator);
      const serving = await coordinator.isServing();
      Object.assign(coordinator, { id: `coordinator-${number}`, url: `http://${serving.public}`, internal: `http://${serving.internal}` });
    }
    const internal = group.coordinators.map((coordinator) => coordinator.internal).join(",");
    group.worker = new Service("divvy-worker", {
      DIVVY_COORDINATOR: internal,
      DIVVY_LISTEN_ADDR: "127.0.0.1:0",
      DIVVY_WORKER_ID: "worker-1",
      DIVVY_SLOTS: "1",
    });
    return group;
  }

  /** The coordinators that run, the leader first, once there is one. */
  async leaderFirst() {
    const running = this.coordinators.filter((coordinator) => !isOver(coordinator.process));
    const leader = await until("a coordinator leads", async () => {
      for (const coordinator of running) {
        const metrics = await fetch(`${coordinator.internal}/metrics`).then((response) => response.text(), () => "");
        if (metrics.split("\n").includes("divvy_leader 1")) return coordinator;
      }
      return null;
    });
    return [leader, ...running.filter((coordinator) => coordinator !== leader)];
  }

  async stop() {
    await this.worker?.stop();
    await Promise.all(this.coordinators.map((coordinator) => coordinator.stop()));
  }
}

export async function temporaryDirectory() {
  const directory = await mkdtemp(path.join(tmpdir(), "divvy-browser-"));
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}
