// Every page as it looks: light, dark and on a phone's width, into target/screenshots. Not a test: somebody looks at them.
//   BROWSER_MODULES=$PWD/target/browser node e2e/browser/screenshots.mjs

import { mkdir } from "node:fs/promises";
import path from "node:path";

import { Grid, PATIENCE_MS, startBrowser, until } from "./helpers.mjs";

const OUT = path.resolve(process.env.SCREENSHOTS ?? "target/screenshots");
const FORMS = {
  light: { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true },
};

/** Jobs of every state, workers of both sorts, and something that needs attention. */
async function fill(grid) {
  const failing = { kind: "tasks", params: { list: ["prices.csv"] }, max_attempts: 1, tags: { team: "night" } };
  const failed = await grid.submit(failing);
  await grid.report(await grid.claim("python-1"), "fail", { error: "ValueError: the input has no column \"price\"" });
  await grid.ended(failed.id);
  const { jobs } = await (await grid.call("POST", "/v1/simulate", { tasks: 4_000, seconds: 0.5, workers: 24 })).json();
  await grid.submit({ kind: "sleep", params: { seconds: 1, tasks: 50 }, requires: { labels: { gpu: "yes" } } });
  const done = await grid.submit({ kind: "sum-of-primes", params: { a: 10, b: 2_000_000_000 }, tags: { team: "day" } });
  await grid.ended(done.id);
  await until("the simulation runs", async () => (await grid.job(jobs[0].id)).tasks.succeeded > 100);
  return { failed: failed.id, running: jobs[0].id, done: done.id };
}

const browser = await startBrowser();
const grid = await Grid.start();
try {
  await mkdir(OUT, { recursive: true });
  const ids = await fill(grid);
  const pages = {
    overview: "/",
    "task-stream": "/task-stream?seconds=30",
    jobs: "/jobs",
    "job-running": `/jobs/${ids.running}`,
    "job-failed": `/jobs/${ids.failed}`,
    "job-done": `/jobs/${ids.done}`,
    "bulk-change": "/jobs/all/retry?state=failed",
    "question-cancel": `/jobs/${ids.running}/cancel`,
    "question-drain": "/grid/workers/worker-1/drain",
    submit: "/submit",
    "submit-tasks": "/submit?kind=tasks",
    "submit-simulation": "/submit?kind=simulation",
    workers: "/grid/workers",
    coordinators: "/grid/coordinators",
    statistics: "/statistics?grain=minute",
    "sign-in": "/sign-in",
    missing: "/nosuch",
  };
  for (const [form, options] of Object.entries(FORMS)) {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    for (const [name, target] of Object.entries(pages)) {
      await page.goto(grid.url + target);
      if (await page.locator("#live").count()) await page.locator('#live[data-is="live"]').waitFor();
      if (name === "task-stream") await page.locator("#stream-jobs a").first().waitFor();
      await page.screenshot({ path: path.join(OUT, `${name}-${form}.png`), fullPage: true });
    }
    await context.close();
  }
  console.log(`${Object.keys(pages).length * Object.keys(FORMS).length} pictures in ${OUT}`);
} finally {
  await browser.close();
  await grid.stop();
}
