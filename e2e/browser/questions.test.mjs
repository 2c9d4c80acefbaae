// Questions before a change that cannot be undone, and the answers for missing pages.

import assert from "node:assert/strict";
import { test } from "node:test";

import { axe, until } from "./helpers.mjs";
import { useGrid } from "./site.mjs";

const { grid, open: openPage, openLive: open } = useGrid();

const waiting = (more = {}) => grid.submit({ kind: "sleep", params: { seconds: 1 }, requires: { labels: { nowhere: "yes" } }, ...more });
const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
const dialogOf = (page) => page.locator("dialog[open]");

test("a job is canceled by the keyboard after a question, and the focus returns where it was", async () => {
  const job = await waiting();
  const { context, page, errors } = await open(`/jobs/${job.id}`);
  for (const leave of [() => page.keyboard.press("Escape"), () => page.keyboard.press("Enter"), () => page.mouse.click(5, 5)]) {
    await page.focus("#do-cancel");
    await page.keyboard.press("Enter");
    await dialogOf(page).waitFor();
    assert.equal(await focused(page), "Back", "Enter changes nothing");
    await leave();
    await dialogOf(page).waitFor({ state: "detached" });
    assert.equal(await focused(page), "do-cancel");
  }
  assert.equal((await grid.job(job.id)).state, "queued");
  await page.keyboard.press("Enter");
  await dialogOf(page).waitFor();
  assert.equal(await dialogOf(page).getAttribute("aria-labelledby"), "question-title");
  assert.equal(await page.locator("h1").count(), 1);
  await page.keyboard.press("Shift+Tab");
  assert.equal(await focused(page), "Cancel job");
  await page.keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "canceled" }).waitFor();
  // The page that comes back asks nothing.
  await page.goBack();
  assert.equal(await page.locator("dialog").count(), 0);
  assert.deepEqual(errors, []);
  await context.close();
});

test("axe finds nothing in a question, light and dark, wide and narrow, and it fits", async () => {
  const jobs = [];
  for (let number = 0; number < 12; number += 1) jobs.push(await waiting({ tags: { asked: "x".repeat(60) } }));
  const forms = [{ colorScheme: "light" }, { colorScheme: "dark" }, { colorScheme: "dark", viewport: { width: 360, height: 600 } }];
  for (const options of forms) {
    for (const [target, control] of [
      [`/jobs/${jobs[0].id}`, "#do-cancel"],
      ["/jobs?tag=asked", '.selection a:has-text("Cancel")'],
      ["/grid/workers", 'a[aria-label="Drain worker-1…"]'],
    ]) {
      const { context, page } = await open(target, options);
      await page.click(control);
      await dialogOf(page).waitFor();
      assert.deepEqual(await axe(page), [], `${target} ${JSON.stringify(options)}`);
      const box = await dialogOf(page).boundingBox();
      const { width, height } = page.viewportSize();
      assert.ok(box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, target);
      const sideways = await dialogOf(page).evaluate((dialog) => dialog.scrollWidth - dialog.clientWidth);
      assert.equal(sideways, 0, target);
      await context.close();
    }
  }
  for (const { id } of jobs) await grid.call("POST", `/v1/jobs/${id}/cancel`);
});

test("a question that a coordinator does not answer says so, and one that is too late leads to the job", async () => {
  const job = await waiting();
  const { context, page } = await open(`/jobs/${job.id}`);
  await page.click("#do-cancel");
  await dialogOf(page).waitFor();
  await grid.call("POST", `/v1/jobs/${job.id}/cancel`);
  await grid.call("POST", `/v1/jobs/${job.id}/retry`);
  await page.click('dialog button:has-text("Cancel job")');
  await page.locator(".title .state", { hasText: "canceled" }).waitFor();

  const done = await grid.submit({ kind: "sleep", params: { seconds: 0 } });
  await grid.ended(done.id);
  await page.goto(`${grid.url}/jobs/${done.id}/cancel`);
  await page.locator(".question", { hasText: "there is nothing to cancel" }).waitFor();
  await page.evaluate((id) => {
    const form = Object.assign(document.createElement("form"), { method: "post", action: `/jobs/${id}/cancel` });
    document.body.append(form);
    form.submit();
  }, done.id);
  await page.locator("h1", { hasText: "Not possible" }).waitFor();
  await page.click('a:has-text("To the job")');
  await page.locator(".title .state", { hasText: "succeeded" }).waitFor();

  const other = await waiting();
  await page.goto(`${grid.url}/jobs/${other.id}`);
  await grid.kill("SIGKILL");
  await page.click("#do-cancel");
  await page.locator("dialog h2", { hasText: "does not answer" }).waitFor();
  await page.keyboard.press("Enter");
  await dialogOf(page).waitFor({ state: "detached" });
  await grid.run(grid.port);
  await context.close();
});

test("an address without a page is told on a page that leads on, also without scripts", async () => {
  for (const javaScriptEnabled of [true, false]) {
    const { context, page } = await openPage("/", { javaScriptEnabled });
    for (const [target, link] of [["/nosuch", "/"], ["/jobs/nothing", "/jobs"], ["/v1/nosuch", "/"], ["/grid/workers/nobody/drain", "/grid/workers"]]) {
      const response = await page.goto(grid.url + target);
      assert.equal(response.status(), 404, target);
      await page.locator("h1", { hasText: "Not found" }).waitFor();
      assert.match(await page.title(), /^Not found · divvy$/);
      await page.click(`main a[href="${link}"]`);
      await page.waitForURL(grid.url + link);
    }
    await context.close();
  }
  const problem = await grid.call("GET", "/nosuch");
  assert.deepEqual([problem.status, problem.headers.get("content-type")], [404, "application/problem+json"]);
});

test("a change by filter counts the jobs that can change alone, and jobs that are retried run to their end", async () => {
  const tags = { night: "yes" };
  const failed = [];
  for (let number = 0; number < 2; number += 1) {
    const { id } = await grid.submit({ kind: "tasks", params: { list: [number] }, max_attempts: 1, tags });
    const claimed = await grid.claim("puller");
    assert.equal(claimed.job, id);
    await grid.report(claimed, "fail", { error: `no input ${number}` });
    assert.equal((await grid.ended(id)).state, "failed");
    failed.push(id);
  }
  const done = await grid.submit({ kind: "sleep", params: { seconds: 0 }, tags });
  await grid.ended(done.id);
  const queued = await waiting({ tags });
  const { context, page, errors } = await open("/jobs?tag=night");
  const change = async (label, jobs, told) => {
    await page.click(`.selection a:has-text("${label}")`);
    await page.locator("dialog h2", { hasText: `${label} ${jobs}?` }).waitFor();
    await page.click(`dialog button:has-text("${label} ${jobs}")`);
    await page.locator("p.notice", { hasText: told }).waitFor();
  };
  await change("Retry", "2 jobs", "2 jobs were retried.");
  for (let number = 0; number < 2; number += 1) {
    const claimed = await grid.claim("puller");
    assert.ok(failed.includes(claimed.job));
    await grid.report(claimed, "complete", { results: [number] });
  }
  for (const id of failed) assert.equal((await grid.ended(id)).state, "succeeded");
  await until("the list shows it", async () => (await page.locator("#jobs .state", { hasText: "succeeded" }).count()) === 3);

  // A text and a time are compared job by job.
  await page.goto(`${grid.url}/jobs?text=${queued.id}&since=1h`);
  for (const [label, told, state] of [["Pause", "paused", "paused"], ["Resume", "resumed", "queued"], ["Cancel", "canceled", "canceled"]]) {
    await change(label, "1 job", `1 job was ${told}.`);
    assert.equal((await grid.job(queued.id)).state, state);
  }
  assert.deepEqual(errors, []);
  await context.close();
});

test("what a change has done is told once: neither a reload nor the address tells it again", async () => {
  for (let number = 0; number < 2; number += 1) await waiting({ tags: { told: "once" } });
  const { context, page, errors } = await open("/jobs?tag=told");
  await page.click('.selection a:has-text("Cancel")');
  await page.click('dialog button:has-text("Cancel 2 jobs")');
  const told = page.locator("p.notice", { hasText: "2 jobs were canceled." });
  await told.waitFor();
  await page.locator('#live[data-is="live"]').waitFor();
  assert.equal(new URL(page.url()).search, "?tag=told");
  const another = await waiting({ tags: { told: "once" } });
  await page.locator(`#job-${another.id}`).waitFor();
  assert.equal(await told.count(), 1, "it stays while the list changes");
  await page.reload();
  await page.locator(`#job-${another.id}`).waitFor();
  assert.equal(await told.count(), 0);
  await grid.call("POST", `/v1/jobs/${another.id}/cancel`);
  assert.deepEqual(errors, []);
  await context.close();
});
