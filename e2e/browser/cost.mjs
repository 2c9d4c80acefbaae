// The cost of open dashboards to a saturated grid: tasks a second and processor time, without viewers and with five on five
// pages. Each task is a lease of its own and takes no time, so that the coordinator is the bottleneck. A browser on the same
// machine would take processors from the grid: so the requests that five browsers send are recorded first, and sent again at the
// same times during the measurement. Not a test:
//   BROWSER_DIVVY=target/release/divvy BROWSER_MODULES=$PWD/target/browser node e2e/browser/cost.mjs

import { readFile } from "node:fs/promises";

import { Grid, PATIENCE_MS, startBrowser, until } from "./helpers.mjs";

const ROUNDS = Number(process.env.COST_ROUNDS ?? 7);
const MEASURED_MS = 10_000;
const TICKS_PER_SECOND = 100;

/** As many tasks as one simulation may have, and so many of them that a fast grid does not come to their end. */
const SIMULATION = { tasks: 1_000_000, seconds: 0, workers: 34 };
const SIMULATIONS = 6;

/** Stands for the job's id in what was recorded. */
const JOB = "{job}";

const wait = (ms) => new Promise((resume) => setTimeout(resume, ms));
const median = (numbers) => [...numbers].sort((one, other) => one - other)[Math.floor(numbers.length / 2)];

async function processorSeconds(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

const grid = await Grid.start({ workers: 1 });

/** What five browsers, each with a page of its own, ask the coordinator for while a job runs: when, what, and with which headers. */
async function record(id) {
  const browser = await startBrowser();
  const requests = [];
  const startedAt = Date.now();
  for (const target of ["/", "/jobs", `/jobs/${id}`, "/task-stream", "/grid/workers"]) {
    const context = await browser.newContext();
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    const openedAt = Date.now();
    page.on("request", (request) => {
      const path = request.url().slice(grid.url.length).replaceAll(id, JOB);
      requests.push({ afterMs: Date.now() - openedAt, path, headers: request.headers() });
    });
    await page.goto(grid.url + target);
    await page.locator('#live[data-is="live"]').waitFor();
  }
  await wait(startedAt + MEASURED_MS - Date.now());
  await browser.close();
  return requests;
}

/** Sends what was recorded, reads the answers, and returns how to stop it. */
function replay(requests, id) {
  const stop = new AbortController();
  const send = async ({ path, headers }) => {
    const response = await fetch(grid.url + path.replaceAll(JOB, id), { headers, signal: stop.signal });
    for await (const _ of response.body ?? []);
  };
  const failed = [];
  const timers = requests.map((request) =>
    setTimeout(() => send(request).catch((error) => stop.signal.aborted || failed.push(error)), request.afterMs));
  return () => {
    timers.forEach(clearTimeout);
    stop.abort();
    if (failed.length > 0) throw failed[0];
  };
}

async function simulate() {
  const response = await grid.call("POST", "/v1/simulate", SIMULATION);
  if (response.status !== 201) throw new Error(`no simulation: ${await response.text()}`);
  return (await response.json()).jobs[0].id;
}

async function measure(requests) {
  const ids = await Promise.all(Array.from({ length: SIMULATIONS }, simulate));
  const jobs = () => Promise.all(ids.map((id) => grid.job(id)));
  const done = async () => (await jobs()).reduce((sum, job) => sum + job.tasks.succeeded, 0);
  await until("the grid is at work", async () => (await done()) > 1_000);
  const stop = replay(requests, ids[0]);
  const [cpu, tasks, at] = [await processorSeconds(grid.process.pid), await done(), Date.now()];
  await wait(MEASURED_MS);
  const [more, seconds] = [(await done()) - tasks, (Date.now() - at) / 1000];
  const used = ((await processorSeconds(grid.process.pid)) - cpu) / seconds;
  if ((await jobs()).some((job) => job.state !== "running")) throw new Error("a simulation ended: make it longer");
  stop();
  await grid.call("POST", "/v1/jobs/all/cancel?tag=simulation");
  for (const id of ids) await grid.ended(id);
  return { rate: more / seconds, used, perTask: (used * seconds) / more };
}

const first = await simulate();
const recorded = await record(first);
await grid.call("POST", "/v1/jobs/all/cancel?tag=simulation");
await grid.ended(first);
console.log(`five pages sent ${recorded.length} requests within ${MEASURED_MS / 1000} s`);

// Pairs in turns, so that whatever else the machine does meets both.
const pairs = [];
for (let round = 0; round < ROUNDS; round += 1) {
  const pair = {};
  for (const isLookedAt of round % 2 === 0 ? [false, true] : [true, false]) pair[isLookedAt] = await measure(isLookedAt ? recorded : []);
  pairs.push(pair);
  const [without, five] = [pair.false, pair.true];
  pair.added = five.used - five.rate * without.perTask;
  console.log(`${without.rate.toFixed(0)} tasks a second, with five viewers ${five.rate.toFixed(0)}; the pages took ${(pair.added * 100).toFixed(1)} % of a core, the grid alone ${(without.used * 100).toFixed(0)} %`);
}
const share = median(pairs.map((pair) => pair.true.rate / pair.false.rate));
const added = median(pairs.map((pair) => pair.added / pair.false.used));
console.log(`medians of the pairs: five viewers cost ${((1 - share) * 100).toFixed(1)} % of the tasks a second, and ${(added * 100).toFixed(1)} % of the grid's processor time`);
await grid.stop();
