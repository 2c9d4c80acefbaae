// Pages for unusual needs: texts from anywhere in the world, long and hostile ones, tabs, ids, and the way back.

import assert from "node:assert/strict";
import { test } from "node:test";

import { axe, until } from "./helpers.mjs";
import { useGrid } from "./site.mjs";

const { grid, open: openPage, openLive: open } = useGrid();

const HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
const tasks = (list, more = {}) => grid.submit({ kind: "tasks", params: { list }, ...more });

async function failed(error, more = {}) {
  const job = await tasks([1], { max_attempts: 1, ...more });
  await grid.report(await grid.claim("puller"), "fail", { error });
  return grid.ended(job.id);
}

/** That nothing is cut off at the right, and that the page does not scroll sideways. */
const sideways = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

test("markup in tags, labels, parameters and errors is text on every page", async () => {
  await grid.claim("puller", { wait_seconds: 0, labels: { note: HOSTILE } });
  const job = await failed(HOSTILE, { tags: { note: HOSTILE } });
  const { context, page, errors } = await openPage("/");
  for (const target of ["/", "/jobs", `/jobs?tag=${encodeURIComponent(`note:${HOSTILE}`)}`, `/jobs/${job.id}`, "/grid/workers", "/task-stream",
    `/jobs/all/retry?text=${encodeURIComponent(HOSTILE)}`, `/submit?kind=sleep&tags=${encodeURIComponent(HOSTILE)}`, `/jobs/${encodeURIComponent(HOSTILE)}`]) {
    await page.goto(grid.url + target);
    assert.equal(await page.locator("main img, main script:not([src])").count(), 0, target);
    assert.match(await page.title(), / · divvy$/, target);
  }
  await page.goto(`${grid.url}/jobs/${job.id}`);
  assert.ok((await page.innerText("#tasks .outcome .bad")).includes(HOSTILE));
  assert.deepEqual(errors.filter((error) => !error.includes("404")), []);
  await context.close();
});

test("a text from right to left turns nothing beside it, and emoji and long words fit", async () => {
  const job = await failed("\u202egnorw si siht: שגיאה\nsecond line 🧮", {
    tags: { aaa: "\u202eעברית", abb: "short", bbb: "日本語のとても長い名前".repeat(5), ccc: "x".repeat(200), ddd: "🧮" },
  });
  for (const options of [{ viewport: { width: 1280, height: 900 } }, { viewport: { width: 360, height: 800 } }]) {
    const { context, page } = await openPage(`/jobs/${job.id}`, options);
    const [first, second] = [await page.locator("p.sub a.tag").nth(0).boundingBox(), await page.locator("p.sub a.tag").nth(1).boundingBox()];
    assert.ok(second.y > first.y || second.x > first.x, "tags stand in their order");
    assert.match(await page.locator("p.sub a.tag").nth(0).innerText(), /^aaa=/);
    for (const target of [`/jobs/${job.id}`, "/jobs", "/", "/jobs/all/retry?tag=aaa"]) {
      await page.goto(grid.url + target);
      assert.equal(await sideways(page), 0, target);
      assert.deepEqual(await axe(page), [], target);
    }
    await context.close();
  }
});

test("pages fit windows of any width, with their figures and names whole", async () => {
  const job = await grid.submit({ kind: "sleep", params: { seconds: 0.01, tasks: 3 }, requires: { labels: { nowhere: "yes" } } });
  // It shows as a worker that pulls.
  await grid.claim(`python-worker-${"long-".repeat(8)}name`, { wait_seconds: 0 });
  const targets = ["/", "/jobs", `/jobs/${job.id}`, "/grid/workers", "/grid/coordinators", "/statistics?grain=month", `/nosuch/${"x".repeat(300)}`];
  for (const width of [320, 390, 680, 800, 980]) {
    const { context, page } = await openPage("/", { viewport: { width, height: 900 } });
    for (const target of targets) {
      await page.goto(grid.url + target);
      assert.equal(await sideways(page), 0, `${target} at ${width}`);
      const cut = await page.locator(".tiles dd").evaluateAll((all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText));
      assert.deepEqual(cut, [], `${target} at ${width}`);
    }
    await page.goto(`${grid.url}/grid/workers`);
    const names = await page.locator("td.worker").evaluateAll((all) => all.map((one) => one.clientWidth));
    assert.ok(names.length > 0 && Math.min(...names) > 120, `${names} at ${width}`);
    await page.goto(`${grid.url}/jobs`);
    const boxes = await page.locator(`#job-${job.id} td:has(.progress), #job-${job.id} td.num:not(.wide)`).evaluateAll((all) => all.map((one) => one.getBoundingClientRect().toJSON()));
    const [progress, time] = boxes;
    assert.ok(boxes.length === 2 && (progress.right <= time.left || time.bottom <= progress.top), `${JSON.stringify(boxes)} at ${width}`);
    await context.close();
  }
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
});

test("an error of many lines keeps its first and its last ones on the job's page", async () => {
  const lines = Array.from({ length: 25 }, (_, number) => `  File "solve.py", line ${number}, in step`);
  const job = await failed(`Traceback:\n${lines.join("\n")}\nValueError: no column`);
  const { context, page } = await openPage(`/jobs/${job.id}`);
  const shown = await page.locator("#tasks .outcome .bad").innerText();
  assert.ok(shown.includes('\n  File "solve.py", line 3'), shown);
  assert.ok(shown.endsWith("ValueError: no column") && shown.includes("\n…\n"), shown);
  await context.close();
});

test("a long label that no worker has fits the page of its job", async () => {
  const job = await tasks([1], { requires: { labels: { [`label-${"n".repeat(200)}`]: "v".repeat(200) } } });
  for (const viewport of [{ width: 1280, height: 900 }, { width: 390, height: 844 }]) {
    const { context, page } = await openPage(`/jobs/${job.id}`, { viewport });
    await page.locator("#why li", { hasText: "label-nnn" }).waitFor();
    assert.equal(await sideways(page), 0, `${viewport.width}`);
    await context.close();
  }
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
});

test("a tab's title says how its job is", async () => {
  const job = await tasks([1, 2]);
  const { context, page } = await open(`/jobs/${job.id}`);
  const short = job.id.slice(-12);
  assert.equal(await page.title(), `queued · tasks ${short} · divvy`);
  const first = await grid.claim("puller", { max_tasks: 1 });
  await grid.report(first, "complete", { results: [1] });
  await until("it is half done", async () => (await page.title()) === `50 % · tasks ${short} · divvy`);
  await grid.report(await grid.claim("puller"), "complete", { results: [2] });
  await until("it has ended", async () => (await page.title()) === `succeeded · tasks ${short} · divvy`);
  await context.close();
});

test("a job's id is copied, and the button stays while the page follows the grid", async () => {
  const job = await tasks([1], { requires: { labels: { nowhere: "yes" } } });
  const prepare = (context) => context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: grid.url });
  const { context, page } = await open(`/jobs/${job.id}`, { prepare });
  const copy = page.locator("[data-copy]");
  // The button says "Copied" for two seconds only.
  await copy.evaluate((button) => {
    window.said = [];
    new MutationObserver(() => window.said.push(button.textContent)).observe(button, { childList: true });
  });
  await copy.click();
  await until("it says that it has copied", () => page.evaluate(() => window.said.includes("Copied")));
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), job.id);
  await grid.call("POST", `/v1/jobs/${job.id}/pause`);
  await page.mouse.move(2, 2);
  await page.locator(".title .state", { hasText: "paused" }).waitFor();
  assert.ok(await copy.isVisible());
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await context.close();
});

test("a form that its user has come back to makes another job", async () => {
  const { context, page } = await openPage("/submit?kind=sleep&p.seconds=0&tags=way%3Dback");
  const submit = async () => {
    await page.click('button:has-text("Submit job")');
    await page.waitForURL(/\/jobs\/[0-9a-f-]{36}/);
    return new URL(page.url()).pathname;
  };
  const first = await submit();
  await page.goBack();
  await page.waitForURL(/\/submit/);
  const second = await submit();
  assert.notEqual(first, second);
  await page.goBack();
  await page.waitForURL(/\/submit/);
  await page.selectOption('[name="priority"]', "9");
  const third = await submit();
  assert.equal((await grid.job(third.split("/").pop())).priority, 9);
  await context.close();
});

test("the way back and forward goes through filters and pages, and each follows the grid", async () => {
  await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { way: "forth" } });
  const { context, page } = await open("/jobs?tag=way");
  await page.click('nav[aria-label="Pages"] a:has-text("Overview")');
  await page.waitForURL(`${grid.url}/`);
  await page.goBack();
  await page.waitForURL(/tag=way/);
  const before = await page.locator("#jobs tbody tr").count();
  await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags: { way: "forth" } });
  await until("the list that came back follows", async () => (await page.locator("#jobs tbody tr").count()) === before + 1);
  await page.goForward();
  await page.waitForURL(`${grid.url}/`);
  await page.locator('#live[data-is="live"]').waitFor();
  await context.close();
});

test("a job of 10,000 tasks is shown page by page, and a deep link leads to its failed ones", async () => {
  const list = Array.from({ length: 10_000 }, (_, number) => number);
  const job = await tasks(list, { max_attempts: 1 });
  const claimed = await grid.claim("puller", { max_tasks: 1 });
  await grid.report(claimed, "fail", { error: "the only one" });
  const { context, page } = await open(`/jobs/${job.id}`);
  assert.match(await page.locator(".meter").innerText(), /of 10,000/);
  assert.equal(await page.locator("#tasks-table tbody tr").count(), 100);
  await page.click('nav[aria-label="Pages of tasks"] a:has-text("Next")');
  await page.locator("#task-100").waitFor();
  await page.goto(`${grid.url}/jobs/${job.id}?tasks=failed#tasks`);
  await page.locator("#task-0 .bad", { hasText: "the only one" }).waitFor();
  assert.equal(await page.locator("#tasks-table tbody tr").count(), 1);
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await context.close();
});

/** Opens the task stream on windows of 30 s that the test makes. `moveOn` goes on from the first one to the other. */
async function openWindows(first, other) {
  let shown = first;
  const whole = { seconds: 30, hidden_rows: 0, uncounted_leases: 0, jobs: [["0198f0a2-7d3c-7c1e-8a55-0123456789ab", "sleep"]] };
  const prepare = (context) => context.route(/\/task-stream\/data/, (route) => route.fulfill({ json: { ...whole, ...shown } }));
  const opened = await open("/task-stream?seconds=30", { prepare });
  const moveOn = async () => {
    // A hidden row, so that the note tells when the other window is drawn.
    shown = { ...other, hidden_rows: 1 };
    await opened.page.locator("#stream-note", { hasText: "1 more slot is not drawn" }).waitFor();
  };
  return { ...opened, moveOn };
}

const slot = (worker) => ({ worker, slot: 0, busy_ms: 30_000, leases: 0, failed: 0, seconds: 0 });
const WINDOW_END = 1_800_000_000_000;

test("a lease that is longer than the window stays picked, also when a row comes before its own", async () => {
  const long = (row) => [row, 0, 30_000, 0, 1, 0, 0, 100, 7];
  const first = { ends_at_ms: WINDOW_END, is_aggregated: false, rows: [slot("b")], bars: [long(0)] };
  const other = { ends_at_ms: WINDOW_END + 1_200, is_aggregated: false, rows: [slot("a"), slot("b")], bars: [long(1), [0, 29_000, 1_000, 0, 1, 0, 0, 100, 1]] };
  const { context, page, errors, moveOn } = await openWindows(first, other);
  await page.locator("#stream canvas").waitFor();
  await page.focus("#stream canvas");
  await page.keyboard.press("ArrowDown");
  await page.locator("#stream output", { hasText: /^b slot 0 · .* · 7 tasks/ }).waitFor();
  await moveOn();
  assert.match(await page.locator("#stream output").innerText(), /^b slot 0 · .* · 7 tasks/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("the time of a lease has no sixty seconds beside its minutes", async () => {
  const first = { ends_at_ms: WINDOW_END, is_aggregated: false, rows: [slot("b")], bars: [[0, 0, 119_700, 0, 1, 0, 0, 100, 7]] };
  const { context, page } = await openWindows(first, first);
  await page.locator("#stream canvas").waitFor();
  await page.focus("#stream canvas");
  await page.keyboard.press("ArrowDown");
  await page.locator("#stream output", { hasText: "for 1 min 59 s · 7 tasks" }).waitFor();
  await context.close();
});

test("the keyboard walks on from a bar of several leases after the window has moved", async () => {
  // Bars of 250 ms, each with its place as the number of its leases.
  const bars = Array.from({ length: 120 }, (_, place) => [0, 250 * place, 250, 0, place, 0, 0, 50, 0]);
  const first = { ends_at_ms: WINDOW_END, is_aggregated: true, rows: [slot("b")], bars };
  const { context, page, errors, moveOn } = await openWindows(first, { ...first, ends_at_ms: WINDOW_END + 1_120 });
  const output = page.locator("#stream output");
  await page.locator("#stream canvas").waitFor();
  await page.focus("#stream canvas");
  await page.keyboard.press("ArrowDown");
  await output.filter({ hasText: "119 leases ended" }).waitFor();
  await moveOn();
  await page.keyboard.press("ArrowLeft");
  await output.filter({ hasText: "114 leases ended" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("a zoomed view goes along with the keyboard, and Escape leaves the bar", async () => {
  const bars = [2_000, 15_000, 28_000].map((start) => [0, start, 1_000, 0, 1, 0, 0, 100, 1]);
  const first = { ends_at_ms: WINDOW_END, is_aggregated: false, rows: [slot("b")], bars };
  const { context, page, errors } = await openWindows(first, first);
  const output = page.locator("#stream output");
  /** Whether a bar is drawn in the middle of the canvas. */
  const isDrawn = () =>
    page.evaluate(() => {
      const canvas = document.querySelector("#stream canvas");
      const middle = canvas.getContext("2d").getImageData(canvas.width / 2, 9 * devicePixelRatio, canvas.width / 10, 1).data;
      return middle.some((_, at) => at % 4 === 0 && Math.max(...middle.slice(at, at + 3)) - Math.min(...middle.slice(at, at + 3)) > 50);
    });
  await page.locator("#stream canvas").waitFor();
  await page.focus("#stream canvas");
  await page.keyboard.press("ArrowDown");
  for (const span of ["15.0 s", "7.50 s", "3.75 s"]) {
    await page.keyboard.press("+");
    await page.locator("#stream-note", { hasText: `Zoomed to ${span}` }).waitFor();
  }
  assert.equal(await isDrawn(), false);
  await page.keyboard.press("ArrowLeft");
  await until("the view shows the bar", isDrawn);
  await page.keyboard.press("Escape");
  await output.filter({ hasText: "Point at a bar" }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
});

test("a page that opens does not say that its connection is lost before it has tried", async () => {
  const prepare = (context) =>
    context.addInitScript(() => {
      window.told = [];
      const note = (records) => window.told.push(...records.filter(({ target }) => target.id === "live").map(({ target }) => target.dataset.is));
      new MutationObserver(note).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-is"] });
    });
  const { context, page } = await open("/", { prepare });
  assert.equal(await page.evaluate(() => window.told[0]), "opening");
  await context.close();
});
