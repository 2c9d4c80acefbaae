// The dashboard with 100,000 jobs and 200 workers. Its time is told, not judged: the machine may be busy.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Grid, PATIENCE_MS, startBrowser } from "./helpers.mjs";

const JOBS = Number(process.env.BROWSER_JOBS ?? 100_000);

/** The longest that so many jobs may take to be canceled. */
const CANCELING_MS = 1_200_000;

let browser;
let grid;

before(async () => {
  browser = await startBrowser();
  grid = await Grid.start({ workers: 1 });
});

after(async () => {
  await browser?.close();
  await grid?.stop();
});

async function submitMany() {
  const requires = { labels: { nowhere: "yes" } };
  let next = 0;
  const submitter = async () => {
    while (next < JOBS) {
      next += 1;
      const number = next;
      await grid.submit({ kind: "sleep", params: { seconds: 1, tasks: 100 }, tags: { number: String(number) }, requires });
    }
  };
  await Promise.all(Array.from({ length: 64 }, submitter));
}

/** When the page was first painted, in milliseconds after it was asked for. */
function firstPaint() {
  return new Promise((resolve) => {
    const observer = new PerformanceObserver((list) => {
      for (const { startTime } of list.getEntriesByName("first-contentful-paint")) resolve(startTime);
    });
    observer.observe({ type: "paint", buffered: true });
  });
}

test(`${JOBS} jobs and 200 workers are shown, searched and canceled`, { timeout: 3_600_000 }, async (context) => {
  await submitMany();
  await grid.call("POST", "/v1/simulate", { tasks: 20_000, seconds: 0.5, workers: 200 });
  const browsing = await browser.newContext();
  browsing.setDefaultTimeout(PATIENCE_MS);
  const page = await browsing.newPage();
  for (const target of ["/", "/jobs", "/task-stream", `/jobs?tag=number%3A${Math.round(JOBS / 2)}`]) {
    await page.goto(grid.url + target);
    const paint = await page.evaluate(firstPaint);
    context.diagnostic(`${target}: first paint after ${paint.toFixed(0)} ms`);
    await page.locator('#live[data-is="live"]').waitFor();
  }
  assert.equal(await page.locator("#jobs tbody tr").count(), 1);
  await page.goto(`${grid.url}/jobs`);
  await page.click('nav[aria-label="Pages of the list"] a:has-text("Older")');
  assert.equal(await page.locator("#jobs tbody tr").count(), 50);
  await page.goto(`${grid.url}/jobs/all/cancel?tag=number`);
  const all = JOBS.toLocaleString("en-US");
  assert.equal(await page.locator("h1").innerText(), `Cancel ${all} jobs?`);
  const pressedAt = Date.now();
  await page.click(`button:has-text("Cancel ${all} jobs")`, { timeout: CANCELING_MS });
  await page.locator('[role="status"]', { hasText: `${JOBS} jobs were canceled` }).waitFor({ timeout: CANCELING_MS });
  context.diagnostic(`all were canceled within ${((Date.now() - pressedAt) / 1000).toFixed(1)} s`);
  const stats = await (await grid.call("GET", "/v1/stats")).json();
  assert.equal(stats.jobs.queued, undefined, "no job waits any more");
  await browsing.close();
});
