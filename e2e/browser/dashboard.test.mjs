// The dashboard in a real browser against a real grid.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Grid, axe, until } from "./helpers.mjs";
import { isLive, useGrid } from "./site.mjs";

const { grid, newContext, open } = useGrid();

test("each kind is submitted by its form, and its page shows it run and end without a reload", async () => {
  const { context, page, errors } = await open("/submit");
  const kinds = [
    ["sum-of-primes", { "p.a": "10", "p.b": "3700000" }, "468476582935"],
    ["count-primes", { "p.a": "1", "p.b": "1000000" }, "78498"],
    ["sleep", { "p.seconds": "0.2", "p.tasks": "4" }, "tasks"],
  ];
  for (const [kind, fields, result] of kinds) {
    await page.goto(`${grid.url}/submit?kind=${kind}`);
    for (const [name, value] of Object.entries(fields)) await page.fill(`[name="${name}"]`, value);
    await page.fill('[name="tags"]', "from=browser");
    await page.click('button:has-text("Submit job")');
    await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);
    await page.locator(".title .state", { hasText: "succeeded" }).waitFor();
    await page.locator("#result pre", { hasText: result }).waitFor();
  }
  // No worker of this grid runs `tasks`: the page says what the job waits for.
  await page.goto(`${grid.url}/submit?kind=tasks`);
  await page.fill('[name="p.list"]', '{"n": 1}\n{"n": 2}');
  await page.click('button:has-text("Submit job")');
  await page.locator("#why").waitFor();
  // Until its scripts run, the page's dialogs are pages of their own.
  await isLive(page);
  assert.match(await page.locator(".settings").innerText(), /count\s+2/);
  await page.click("#do-cancel");
  await page.click('dialog button:has-text("Cancel job")');
  await page.locator(".title .state", { hasText: "canceled" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("a simulation is started by its form and its jobs end", async () => {
  const { context, page } = await open("/submit?kind=simulation");
  await page.fill('[name="tasks"]', "40");
  await page.fill('[name="seconds"]', "0.1");
  await page.fill('[name="workers"]', "10");
  await page.fill('[name="priorities"]', "1, 9");
  await page.click('button:has-text("Start simulation")');
  await page.waitForURL(/tag=simulation/);
  await page.locator("#toasts .toast", { hasText: "succeeded" }).nth(1).waitFor();
  await until("both jobs have succeeded", async () => (await page.locator("#jobs .state", { hasText: "succeeded" }).count()) === 2);
  await context.close();
});

test("a form that is wrong says where and keeps what was filled in", async () => {
  const { context, page } = await open("/submit?kind=sum-of-primes");
  await page.fill('[name="p.a"]', "100");
  await page.fill('[name="p.b"]', "5");
  await page.fill('[name="tags"]', "keep=me");
  await page.click('button:has-text("Submit job")');
  const wrong = page.locator('[aria-invalid="true"]');
  await wrong.waitFor();
  assert.match(await page.locator(".wrong").innerText(), /a must not be above b/);
  assert.equal(await page.inputValue('[name="tags"]'), "keep=me");
  await page.locator("#field-p-a:focus").waitFor();
  assert.equal(await page.locator("#field-p-a").getAttribute("aria-describedby"), "field-p-a-hint field-p-a-wrong");
  await context.close();
});

test("the filter lives in the address, survives a reload and finds by state, kind, tag and text", async () => {
  for (const team of ["red", "blue", "blue"]) {
    await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { squad: team } });
  }
  const { context, page } = await open("/jobs");
  await page.selectOption('[name="kind"]', "sleep");
  await page.fill('[name="tag"]', "squad:blue");
  await page.selectOption('[name="since"]', "1h");
  await page.click('button:has-text("Filter")');
  await page.waitForURL(/tag=squad%3Ablue/);
  assert.equal(await page.locator("#jobs tbody tr").count(), 2);
  await page.reload();
  assert.equal(await page.inputValue('[name="tag"]'), "squad:blue");
  assert.equal(await page.locator("#jobs tbody tr").count(), 2);
  await page.goto(`${grid.url}/jobs?text=RED&tag=squad`);
  assert.equal(await page.locator("#jobs tbody tr").count(), 1);
  await context.close();
});

test("many jobs are canceled by filter, with a count beforehand", async () => {
  const requires = { labels: { nowhere: "yes" } };
  for (let number = 0; number < 7; number += 1) {
    await grid.submit({ kind: "sleep", params: { seconds: 1 }, tags: { bulk: "yes" }, requires });
  }
  const { context, page } = await open("/jobs?tag=bulk%3Ayes");
  await page.click('.selection a:has-text("Cancel")');
  await page.locator("dialog h2", { hasText: "Cancel 7 jobs?" }).waitFor();
  await page.click('button:has-text("Cancel 7 jobs")');
  await page.locator('[role="status"]', { hasText: "7 jobs were canceled." }).waitFor();
  await until("the list shows it", async () => (await page.locator("#jobs .state", { hasText: "canceled" }).count()) === 7);
  await context.close();
});

test("a page follows the grid, and neither focus nor selection nor scroll position is lost", async () => {
  // Long enough not to end while the page opens.
  const job = await grid.submit({ kind: "sleep", params: { seconds: 1, tasks: 60, tasks_per_lease: 1 } });
  const { context, page } = await open(`/jobs/${job.id}`, { viewport: { width: 1000, height: 500 } });
  await isLive(page);
  await page.locator("#tasks h2").scrollIntoViewIfNeeded();
  const link = page.locator("#tasks .choices a", { hasText: "failed" });
  await link.focus();
  const before = await page.evaluate(() => {
    const selection = document.getSelection();
    selection.selectAllChildren(document.querySelector("#tasks h2"));
    return { scroll: window.scrollY };
  });
  const done = () => page.locator("#tasks .state", { hasText: "succeeded" }).count();
  const first = await done();
  await until("more tasks are done", async () => (await done()) > first + 3);
  const now = await page.evaluate(() => ({
    scroll: window.scrollY,
    focus: document.activeElement.textContent,
    selection: String(document.getSelection()),
  }));
  assert.deepEqual(now, { scroll: before.scroll, focus: "failed", selection: "Tasks" });
  await context.close();
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
});

test("no row comes or goes under the pointer", async () => {
  await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { still: "first" } });
  const { context, page } = await open("/jobs?tag=still");
  await isLive(page);
  await page.hover("#jobs tbody tr");
  await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { still: "second" } });
  await page.locator("#live", { hasText: "1 change waits for the pointer" }).waitFor();
  assert.equal(await page.locator("#jobs tbody tr").count(), 1);
  await page.mouse.move(2, 2);
  await until("the row comes", async () => (await page.locator("#jobs tbody tr").count()) === 2);
  await context.close();
});

test("a paused page stands still until it is resumed", async () => {
  const { context, page } = await open("/jobs?tag=paused");
  await isLive(page);
  await page.click("#pause");
  await page.locator('#live[data-is="paused"]').waitFor();
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { paused: "yes" } });
  await grid.ended(job.id);
  assert.deepEqual(requests, []);
  await page.click("#pause");
  await page.locator("#jobs tbody tr").waitFor();
  await context.close();
});

test("a coordinator that is killed shows as lost, and the page heals by itself", async () => {
  const { context, page } = await open("/");
  await isLive(page);
  await grid.kill("SIGKILL");
  await page.locator("#live", { hasText: "connection lost" }).waitFor();
  await grid.run(grid.port);
  await isLive(page);
  await until("the page is of the new coordinator", async () => {
    const shown = await page.getAttribute("main", "data-version");
    const fresh = await (await grid.call("GET", "/")).text();
    return fresh.includes(`data-version="${shown.split("-")[0]}-`);
  });
  await context.close();
});

test("ten tabs share one stream", async () => {
  const context = await newContext();
  const streams = new Set();
  const pages = [];
  for (let number = 0; number < 10; number += 1) {
    const page = await context.newPage();
    page.on("request", (request) => {
      if (request.url().endsWith("/live")) streams.add(request);
    });
    await page.goto(grid.url + (number % 2 === 0 ? "/" : "/jobs"));
    pages.push(page);
  }
  for (const page of pages) await isLive(page);
  const cdp = await context.newCDPSession(pages[0]);
  const { targetInfo: own } = await cdp.send("Target.getTargetInfo");
  const { targetInfos } = await cdp.send("Target.getTargets", { filter: [{ type: "shared_worker" }] });
  const workers = targetInfos.filter((target) => target.browserContextId === own.browserContextId);
  assert.equal(workers.length, 1, "one shared worker");
  assert.equal(streams.size, 0, "no page has a stream of its own");
  await context.close();
});

test("the task stream draws the leases, and the keyboard walks through them", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0.1, tasks: 10, tasks_per_lease: 1 } });
  await grid.ended(job.id);
  const { context, page, errors } = await open("/task-stream?seconds=300");
  await page.locator("#stream canvas").waitFor();
  await page.locator(".slots tbody tr").first().waitFor();
  await until("something is drawn", () =>
    page.evaluate(() => {
      const canvas = document.querySelector("#stream canvas");
      if (canvas.width === 0) return false;
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte !== 0);
    }),
  );
  await page.focus("#stream canvas");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowLeft");
  await page.locator("#stream output", { hasText: /worker-\d slot 0 · / }).waitFor();
  await page.keyboard.press("+");
  await page.locator("#stream-note", { hasText: "Zoomed to" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("every page is reached and used by the keyboard alone", async () => {
  const { context, page } = await open("/");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  await until("the content has the focus", () => page.evaluate(() => document.activeElement.id === "main"));
  await page.locator('nav[aria-label="Pages"] a', { hasText: "Submit" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/submit/);
  await page.focus('[name="p.a"]');
  await page.keyboard.type("1");
  await page.keyboard.press("Tab");
  await page.keyboard.type("100");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/jobs\//);
  await context.close();
});

test("axe finds nothing, light and dark, wide and narrow, no page scrolls sideways, and on a phone no table does", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0.01, tasks: 5, fail_rate: 1 }, max_attempts: 1 });
  await grid.ended(job.id);
  const waits = await grid.submit({ kind: "sleep", params: { seconds: 1 }, requires: { labels: { nowhere: "yes" } } });
  const targets = ["/", "/task-stream", "/jobs", "/jobs?state=failed", `/jobs/${job.id}`, "/jobs/all/retry?state=failed"].concat(
    ["/submit", "/submit?kind=sleep", "/submit?kind=tasks", "/submit?kind=simulation", "/grid/workers", "/grid/coordinators", "/statistics?grain=minute", "/sign-in", "/jobs/nothing", "/nosuch", `/jobs/${waits.id}/cancel`, "/grid/workers/worker-1/drain"],
  );
  const forms = [{ colorScheme: "light" }, { colorScheme: "dark" }, { colorScheme: "light", viewport: { width: 390, height: 844 } }];
  for (const options of forms) {
    const { context, page } = await open("/", options);
    for (const target of targets) {
      await page.goto(grid.url + target);
      assert.deepEqual(await axe(page), [], `${target} ${JSON.stringify(options)}`);
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(sideways, 0, `${target} ${JSON.stringify(options)}`);
      if (options.viewport !== undefined) {
        const tables = await page.locator(".scrolls").evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.id));
        assert.deepEqual(tables, [], `${target} on a phone`);
      }
      assert.equal(await page.locator("h1").count(), 1, target);
    }
    await context.close();
  }
});

test("without scripts every page is a plain page, and forms post and lead on", async () => {
  const { context, page } = await open("/submit?kind=sleep", { javaScriptEnabled: false });
  await page.fill('[name="p.seconds"]', "600");
  await page.click('button:has-text("Submit job")');
  await page.locator(".title .state").waitFor();
  assert.equal(await page.locator("#live").innerText(), "updated when loaded");
  const cancel = async () => {
    await page.click("#do-cancel");
    await page.locator("h1", { hasText: "Cancel job?" }).waitFor();
    await page.click('button:has-text("Cancel job")');
    await page.locator(".title .state", { hasText: "canceled" }).waitFor();
  };
  await cancel();
  await page.click('button:has-text("Retry")');
  await page.locator(".title .state").waitFor();
  await cancel();
  await page.goto(`${grid.url}/task-stream`);
  await page.locator("h2", { hasText: "Slots in this window" }).waitFor();
  await context.close();
});

test("a page of another site changes nothing here", async () => {
  const { context, page } = await open("/jobs");
  // Another port is another origin: a form of it is sent and refused.
  const other = await Grid.start({ workers: 1 });
  await page.goto(other.url);
  const action = `${grid.url}/submit`;
  const refused = page.waitForResponse((response) => response.url() === action);
  await page.evaluate((to) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action: to });
    form.append(Object.assign(document.createElement("input"), { name: "kind", value: "sleep" }));
    document.body.append(form);
    form.submit();
  }, action).catch(() => undefined);
  // The page's own policy would not even let it go; a page without one can be written by anybody.
  const blocked = Promise.race([refused.then((response) => response.status()), until("it is blocked", async () => page.url() === `${other.url}/`).then(() => "blocked")]);
  assert.ok([403, "blocked"].includes(await blocked));
  for (const headers of [{ "sec-fetch-site": "cross-site" }, { origin: "http://evil.example" }]) {
    const response = await fetch(action, { method: "POST", headers, body: new URLSearchParams({ kind: "sleep", "p.seconds": "1" }) });
    assert.equal(response.status, 403);
  }
  await other.stop();
  await context.close();
});

test("the end of a submitted job is told on every page, also after a reload and a restart", async () => {
  const { context, page } = await open("/submit?kind=tasks");
  await page.fill('[name="p.list"]', '{"n": 1}');
  await page.click('button:has-text("Submit job")');
  await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);
  const id = new URL(page.url()).pathname.split("/").pop();
  // The browser is elsewhere when the job ends.
  await page.goto("about:blank");
  const claimed = await grid.claim("puller");
  assert.equal(claimed.job, id);
  await grid.report(claimed, "complete", { results: [1] });
  await grid.ended(id);
  await page.goto(`${grid.url}/jobs`);
  const toast = page.locator("#toasts .toast", { hasText: "succeeded" });
  await toast.waitFor();
  assert.equal(await toast.locator("a").getAttribute("href"), `/jobs/${id}`);
  await toast.locator("button").click();
  await page.reload();
  await isLive(page);
  assert.equal(await page.locator("#toasts .toast").count(), 0);
  await context.close();
});
