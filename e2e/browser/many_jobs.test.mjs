// The dashboard with 100,000 jobs and 200 workers. Its time is told, not judged: the machine may be busy.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isLive, useGrid } from "./site.mjs";

const JOBS = Number(process.env.BROWSER_JOBS ?? 100_000);

/** The longest that jobs are submitted for: a machine that is too slow for all of them goes on with those that it has. */
const SUBMITTING_MS = Number(process.env.BROWSER_SUBMITTING_MS ?? 300_000);
const FEWEST_JOBS = Math.min(JOBS, 2_000);

/** The longest that so many jobs may take to be canceled. */
const CANCELING_MS = 300_000;

const { grid, open } = useGrid(() => ({ workers: 1 }));

/** Submits up to so many jobs that wait, every second one of the team `even`; returns how many there are. */
async function submitMany() {
  const requires = { labels: { nowhere: "yes" } };
  const deadline = Date.now() + SUBMITTING_MS;
  let next = 0;
  const submitter = async () => {
    while (next < JOBS && Date.now() < deadline) {
      next += 1;
      const tags = { number: String(next), team: next % 2 === 0 ? "even" : "odd" };
      await grid.submit({ kind: "sleep", params: { seconds: 1, tasks: 100 }, tags, requires });
    }
  };
  await Promise.all(Array.from({ length: 64 }, submitter));
  return next;
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

async function cancelAll(page, filter, expected) {
  await page.goto(`${grid.url}/jobs?${filter}`);
  await page.click('.selection a:has-text("Cancel")');
  const all = `${expected.toLocaleString("en-US")} jobs`;
  assert.equal(await page.locator("#question-title").innerText(), `Cancel ${all}?`);
  await page.click(`button:has-text("Cancel ${all}")`, { timeout: CANCELING_MS });
  await page.locator('[role="status"]', { hasText: `${all} were canceled` }).waitFor({ timeout: CANCELING_MS });
}

test(`up to ${JOBS.toLocaleString("en-US")} jobs and 200 workers are shown, searched and canceled by filter`, { timeout: 1_200_000 }, async (test) => {
  const startedAt = Date.now();
  const seconds = (since) => ((Date.now() - since) / 1000).toFixed(1);
  const jobs = await submitMany();
  test.diagnostic(`${jobs} jobs of ${jobs * 100} tasks were submitted within ${seconds(startedAt)} s`);
  assert.ok(jobs >= FEWEST_JOBS, `only ${jobs} jobs could be submitted in time`);
  // The simulation takes longer than this test may.
  const simulation = { tasks: 1_000_000, seconds: 0.5, workers: 200 };
  const { jobs: simulated } = await (await grid.call("POST", "/v1/simulate", simulation)).json();
  const middle = Math.round(jobs / 2);
  const { context, page } = await open("/sign-in");
  for (const target of ["/", "/jobs", "/task-stream", `/jobs/${simulated[0].id}`, "/statistics?grain=minute", `/jobs?tag=number%3A${middle}`]) {
    await page.goto(grid.url + target);
    const paint = await page.evaluate(firstPaint);
    test.diagnostic(`${target}: first paint after ${paint.toFixed(0)} ms`);
    await isLive(page);
  }
  assert.equal(await page.locator("#jobs tbody tr").count(), 1);
  await page.goto(`${grid.url}/jobs?state=running`);
  assert.equal(await page.locator("#jobs tbody tr").count(), 1, "the simulation alone runs");
  await grid.call("POST", "/v1/jobs/all/cancel?tag=simulation");
  await grid.ended(simulated[0].id);
  await page.goto(`${grid.url}/jobs?state=queued&text=${jobs}`);
  await page.locator("#jobs tbody tr").first().waitFor();
  await page.goto(`${grid.url}/jobs`);
  await page.click('nav[aria-label="Pages of the list"] a:has-text("Older")');
  await page.waitForURL((url) => url.search !== "");
  assert.equal(await page.locator("#jobs tbody tr").count(), 50);

  const cancelingAt = Date.now();
  const even = Math.floor(jobs / 2);
  await cancelAll(page, "tag=team%3Aeven", even);
  await cancelAll(page, "tag=number&state=queued", jobs - even);
  test.diagnostic(`all were canceled within ${seconds(cancelingAt)} s`);
  const stats = await (await grid.call("GET", "/v1/stats")).json();
  assert.equal(stats.jobs.queued, undefined, "no job waits any more");
  await context.close();
});
