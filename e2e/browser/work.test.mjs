// Operation of a grid: tasks of a worker that pulls, changes of many jobs, drains, a restart, notifications.

import assert from "node:assert/strict";
import { test } from "node:test";

import { until } from "./helpers.mjs";
import { clickAndLoad, useGrid } from "./site.mjs";

const { grid, openLive: open } = useGrid();

const tasks = (list, more = {}) => grid.submit({ kind: "tasks", params: { list }, ...more });
const waits = (page) => page.locator("#live", { hasText: /wait(s)? for the pointer/ }).waitFor();
/** Has a page count, as `ticks`, how often it hears of the grid from now on. */
const countTicks = (page) => page.evaluate(() => {
  window.ticks = 0;
  document.addEventListener("divvy:tick", () => { window.ticks += 1; });
});

test("a job whose tasks are fetched is followed to its end, with its errors and its result", async () => {
  const job = await tasks([{ n: 1 }, { n: 2 }], { max_attempts: 2 });
  const { context, page, errors } = await open(`/jobs/${job.id}`);
  const first = await grid.claim("puller", { max_tasks: 1 });
  await page.locator("#task-0 .state", { hasText: "running" }).waitFor();
  await grid.report(first, "fail", { error: "the disk is <full>" });
  await page.locator("#task-0 .bad", { hasText: "the disk is <full>" }).waitFor();
  for (let left = 2; left > 0; left -= 1) {
    const claimed = await grid.claim("puller", { max_tasks: 1 });
    await grid.report(claimed, "complete", { results: claimed.tasks.map(({ payload }) => payload.n * 10) });
  }
  await page.locator(".title .state", { hasText: "succeeded" }).waitFor();
  await page.locator("#result pre", { hasText: '{"tasks":[10,20]}' }).waitFor();
  assert.match(await page.locator("#task-1").innerText(), /puller/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a page that is open while the coordinator restarts shows the job go on and end", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0.5, tasks: 12, tasks_per_lease: 1 } });
  const { context, page } = await open(`/jobs/${job.id}`);
  await page.locator("#tasks .state", { hasText: "succeeded" }).first().waitFor();
  await grid.kill("SIGKILL");
  await page.locator("#live", { hasText: "connection lost" }).waitFor();
  await grid.run(grid.port);
  await page.locator(".title .state", { hasText: "succeeded" }).waitFor();
  assert.equal(await page.locator("#tasks .state", { hasText: "succeeded" }).count(), 12);
  await context.close();
});

test("a page whose question gets no answer asks again, half a minute later or once the connection was lost", async () => {
  const { context, page } = await open("/jobs?tag=unanswered", { prepare: (context) => context.clock.install() });
  const rows = page.locator("#jobs tbody tr");
  let held = 0;
  /** Has the page ask for itself, and does not answer. */
  const hold = async () => {
    const before = held;
    await page.route(/\/jobs\?tag=unanswered$/, () => { held += 1; }, { times: 1 });
    const job = await tasks([1], { tags: { unanswered: "yes" }, requires: { labels: { nowhere: "yes" } } });
    await until("the page has asked", () => held > before);
    return job;
  };
  const first = await hold();
  assert.equal(await rows.count(), 0);
  await page.clock.fastForward(31_000);
  await rows.first().waitFor();
  const second = await hold();
  await grid.kill("SIGKILL");
  await page.locator("#live", { hasText: "connection lost" }).waitFor();
  await grid.run(grid.port);
  await rows.nth(1).waitFor();
  for (const { id } of [first, second]) await grid.call("POST", `/v1/jobs/${id}/cancel`);
  await context.close();
});

test("a list that looks for a text is renewed more seldom than others", async () => {
  const opened = Date.now();
  const { context, page } = await open("/jobs?text=needle", { prepare: (context) => context.clock.setFixedTime(opened) });
  await countTicks(page);
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const job = await tasks([1], { tags: { needle: "yes" }, requires: { labels: { nowhere: "yes" } } });
  await until("the page has heard of it", () => page.evaluate(() => window.ticks >= 5));
  assert.deepEqual(requests, []);
  await page.clock.setFixedTime(opened + 16_000);
  await page.locator(`#job-${job.id}`).waitFor();
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await context.close();
});

test("a list that looks for a text is not asked for each second where it cannot be made", async () => {
  const opened = Date.now();
  const { context, page } = await open("/jobs?text=broken", { prepare: (context) => context.clock.setFixedTime(opened) });
  let asked = 0;
  await page.route(/\/jobs\?text=broken$/, (route) => {
    asked += 1;
    return route.fulfill({ status: 503, body: "" });
  });
  await page.clock.setFixedTime(opened + 16_000);
  await until("the page has asked", () => asked > 0);
  await countTicks(page);
  await until("seconds have passed", () => page.evaluate(() => window.ticks >= 3));
  assert.equal(asked, 1);
  await context.close();
});

test("an hour of the task stream is gathered more seldom than a minute", async () => {
  const opened = Date.now();
  const prepare = (context) => context.clock.setFixedTime(opened);
  const { context, page } = await open("/task-stream?seconds=3600", { prepare });
  await page.locator("#stream canvas").waitFor();
  await countTicks(page);
  const requests = [];
  page.on("request", (request) => requests.push(new URL(request.url()).pathname));
  await until("seconds have passed", () => page.evaluate(() => window.ticks >= 5));
  assert.deepEqual(requests, []);
  await page.clock.setFixedTime(opened + 14_000);
  await until("the leases are asked for", () => requests.length > 0);
  assert.deepEqual(requests, ["/task-stream/data"]);
  await context.close();
});

test("the end of a job is told by a notification where its user allowed it, and once, also after a reload", async () => {
  const job = await tasks([1]);
  const prepare = async (context) => {
    await context.grantPermissions(["notifications"], { origin: grid.url });
    await context.addInitScript(() => {
      const told = [];
      const Real = window.Notification;
      window.told = told;
      window.Notification = class extends Real {
        constructor(title, options) {
          super(title, options);
          told.push({ title, ...options });
        }
      };
    });
  };
  const { context, page } = await open(`/jobs/${job.id}`, { prepare });
  await page.click("#notify");
  await page.locator("#notify").waitFor({ state: "hidden" });
  const claimed = await grid.claim("puller");
  await grid.report(claimed, "complete", { results: [1] });
  await page.locator("#toasts .toast", { hasText: "succeeded" }).waitFor();
  const told = await page.evaluate(() => window.told);
  assert.deepEqual(told, [{ title: "divvy", body: `tasks ${job.id.slice(-12)} succeeded`, tag: job.id }]);
  await page.reload();
  await page.locator("#toasts .toast", { hasText: "succeeded" }).waitFor();
  assert.deepEqual(await page.evaluate(() => window.told), []);
  await context.close();
});

test("a page asks no more for the end of a job that it has told", async () => {
  const job = await tasks([1]);
  const { context, page } = await open(`/jobs/${job.id}?submitted=${job.id}`);
  await grid.report(await grid.claim("puller"), "complete", { results: [1] });
  await page.locator("#toasts .toast", { hasText: "succeeded" }).waitFor();
  const requests = [];
  page.on("request", (request) => requests.push(new URL(request.url()).pathname));
  // The first renewal may belong to the job's end; with the second one the page has heard of another change.
  for (let renewals = 1; renewals <= 2; renewals += 1) {
    const other = await tasks([renewals]);
    await until("the page is renewed", () => requests.filter((path) => path === `/jobs/${job.id}`).length >= renewals);
    await grid.call("POST", `/v1/jobs/${other.id}/cancel`);
  }
  assert.ok(!requests.includes("/jobs/states"), requests.join(" "));
  await context.close();
});

test("many jobs are paused, resumed and retried by their filter", async () => {
  const requires = { labels: { nowhere: "yes" } };
  const jobs = [];
  for (let number = 0; number < 3; number += 1) jobs.push(await tasks([number], { tags: { many: "yes" }, requires }));
  const { context, page } = await open("/jobs?tag=many%3Ayes");
  const change = async (label, done, state) => {
    await page.click(`.selection a:has-text("${label}")`);
    await page.click(`button:has-text("${label} 3 jobs")`);
    await page.locator('[role="status"]', { hasText: `3 jobs were ${done}.` }).waitFor();
    for (const { id } of jobs) assert.equal((await grid.job(id)).state, state);
  };
  await change("Pause", "paused", "paused");
  await change("Resume", "resumed", "queued");
  await change("Cancel", "canceled", "canceled");
  // Without this state a retry leaves canceled jobs out.
  await page.goto(`${grid.url}/jobs?tag=many%3Ayes&state=canceled`);
  await change("Retry", "retried", "queued");
  await page.goto(`${grid.url}/jobs?tag=many%3Ayes`);
  await change("Cancel", "canceled", "canceled");
  await context.close();
});

test("nothing moves under the pointer on the overview, and all of it comes when the pointer has left", async () => {
  const held = await tasks([1]);
  const claimed = await grid.claim("holder");
  assert.equal(claimed.job, held.id);
  const { context, page } = await open("/");
  const row = page.locator(`#running-${held.id}`);
  await row.waitFor();
  await row.hover();
  const before = await row.boundingBox();
  const failing = await tasks([1], { max_attempts: 1 });
  await grid.report(await grid.claim("puller"), "fail", { error: "on purpose" });
  await grid.ended(failing.id);
  await waits(page);
  assert.deepEqual(await row.boundingBox(), before);
  assert.equal(await page.locator(`#attention-failed-${failing.id}`).count(), 0);
  await page.mouse.move(2, 2);
  await page.locator(`#attention-failed-${failing.id}`).waitFor();
  await grid.report(claimed, "complete", { results: [1] });
  await row.waitFor({ state: "detached" });
  await context.close();
});

test("nothing moves under the pointer on a job's page, and all of it comes when the pointer has left", async () => {
  const job = await tasks([1, 2, 3]);
  const { context, page } = await open(`/jobs/${job.id}`);
  const row = page.locator("#task-1");
  await row.hover();
  const before = await row.boundingBox();
  await grid.call("POST", `/v1/jobs/${job.id}/pause`);
  await waits(page);
  assert.deepEqual(await row.boundingBox(), before);
  assert.equal(await page.locator("#events-list li", { hasText: "paused" }).count(), 0);
  assert.equal(await page.locator("#do-resume").count(), 0);
  await page.mouse.move(2, 2);
  await page.locator("#events-list li", { hasText: "paused" }).waitFor();
  await page.locator("#do-resume").waitFor();
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await context.close();
});

test("workers of both sorts are drained, and stand first then", async () => {
  assert.equal(await grid.claim("zeta", { wait_seconds: 0 }), null);
  const { context, page } = await open("/grid/workers");
  for (const name of ["worker-2", "zeta"]) {
    await page.click(`a[aria-label="Drain ${name}…"]`);
    await clickAndLoad(page, `dialog button:has-text("Drain ${name}")`);
    await page.locator(`#worker-${name} .state`, { hasText: "draining" }).waitFor();
    assert.equal(await page.locator(`a[aria-label="Drain ${name}…"]`).count(), 0);
  }
  const first = await page.locator("table.workers tbody .name").first().innerText();
  assert.equal(first, "worker-2");
  await tasks([1]);
  assert.equal(await grid.claim("zeta", { wait_seconds: 0 }), null, "there is a task, and not for this worker");
  await grid.report(await grid.claim("puller"), "complete", { results: [1] });
  await context.close();
});

test("the task stream names the lease under the pointer, leads to its job, zooms by buttons and stands still while paused", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 3, tasks: 2, tasks_per_lease: 1 } });
  await grid.ended(job.id);
  const { context, page, errors } = await open("/task-stream?seconds=30");
  const canvas = page.locator("#stream canvas");
  const said = page.locator("#stream output");
  await page.locator(`#stream-jobs a[href="/jobs/${job.id}"]`).waitFor();
  // The bars stand still, however long the pointer looks for one.
  await page.click("#pause");
  await page.locator('#live[data-is="paused"]').waitFor();
  const named = await until("a lease of the job is under the pointer", async () => {
    const box = await canvas.boundingBox();
    for (let y = box.y + 9; y < box.y + box.height - 22; y += 21) {
      for (let x = box.x + box.width - 4; x > box.x + 100; x -= 6) {
        await page.mouse.move(x, y);
        if ((await said.innerText()).includes(job.id.slice(-12))) return { x, y };
      }
    }
    return null;
  });
  await page.mouse.click(named.x, named.y);
  await page.mouse.move(2, 2);
  assert.equal(await page.locator("#lease-job").getAttribute("href"), `/jobs/${job.id}`);
  const [, took] = /sleep .* UTC for ([\d.]+) s · 1 task/.exec(await said.innerText()) ?? [];
  assert.ok(Number(took) >= 3, await said.innerText());
  assert.equal(await page.locator(`#stream-jobs a[href="/jobs/${job.id}"]`).count(), 1);

  await page.click('[data-zoom="in"]');
  await page.locator("#stream-note", { hasText: "Zoomed to 15.0 s" }).waitFor();
  await page.click('[data-zoom="all"]');
  await page.locator("#stream-note", { hasText: "Zoomed" }).waitFor({ state: "detached" }).catch(() => undefined);
  assert.doesNotMatch(await page.locator("#stream-note").innerText(), /Zoomed/);

  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await grid.ended((await grid.submit({ kind: "sleep", params: { seconds: 1 } })).id);
  assert.deepEqual(requests, []);
  await page.click("#pause");
  await until("the stream goes on", () => requests.some((url) => url.includes("/task-stream/data")));
  assert.deepEqual(errors, []);
  await context.close();
});

test("statistics show what has ended, as figures and as charts, and follow the grid", async () => {
  const { context, page } = await open("/statistics?grain=minute&kind=count-primes");
  await page.locator("#kinds-none").waitFor();
  const job = await grid.submit({ kind: "count-primes", params: { a: 1, b: 100_000_000 } });
  const ended = await grid.ended(job.id);
  await page.locator("#kind-count-primes").waitFor();
  const count = (number) => number.toLocaleString("en-US");
  const expected = ["1", "0", count(ended.tasks.total), "0"].join();
  // The row comes with the job's start.
  const cells = await until("the row tells of the end", async () => {
    const texts = await page.locator("#kind-count-primes td").allInnerTexts();
    return texts.slice(0, 4).join() === expected ? texts : null;
  });
  assert.match(cells[4], /\d (ms|s)/);
  // A minute may have ended meanwhile.
  assert.ok([1, 2].includes(await page.locator("#by-period tbody tr").count()));
  assert.ok((await page.locator('svg[role="img"], figure svg').count()) >= 2);
  await page.locator("body", { hasText: `${count(ended.tasks.total)} succeeded, 0 failed` }).waitFor();
  await context.close();
});

// The last one: it leaves no worker.
test("a job that has started and lost its workers is shown as waiting, with the reason", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0.3, tasks: 100_000, tasks_per_lease: 1 }, tags: { left: "alone" } });
  await until("it runs", async () => (await grid.job(job.id)).tasks.succeeded > 0);
  for (const worker of ["worker-1", "worker-2"]) assert.equal((await grid.call("POST", `/workers/${worker}/drain`)).status, 204);
  const { context, page } = await open("/jobs?tag=left");
  await page.locator("#jobs .state", { hasText: "waiting" }).waitFor();
  await page.locator("#jobs .why", { hasText: /no worker is ready|none of the/ }).waitFor();
  await page.goto(`${grid.url}/jobs/${job.id}`);
  await page.locator(".title .state", { hasText: "waiting" }).waitFor();
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await context.close();
});
