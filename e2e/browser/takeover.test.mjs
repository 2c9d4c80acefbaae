// The dashboard of three coordinators over one PostgreSQL: pages of a standby, and pages that are open while the lead moves.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { until } from "./helpers.mjs";
import { Group, Postgres, temporaryDirectory } from "./postgres.mjs";
import { isLive, useBrowser } from "./site.mjs";

const { openUrl } = useBrowser();
let postgres;
let place;
let group;

before(async () => {
  postgres = await Postgres.start();
  place = await temporaryDirectory();
  group = await Group.start(3, await postgres.url("dashboard"), place.directory);
});

after(async () => {
  await group?.stop();
  await postgres?.stop();
  await place?.remove();
});

const leaderShown = (page) => page.locator("tr", { has: page.locator(".state", { hasText: "leader" }) }).locator(".name").innerText();

/**
 * Waits until a page names the coordinator that leads, and no other one, as the leader. The lead moves by itself while the machine
 * stands still.
 */
const namesLeader = (page) => until("the page names the leader", async () => {
  const [{ id }] = await group.leaderFirst();
  const shown = await page.locator(".state", { hasText: "leader" }).count();
  return shown === 1 && (await leaderShown(page)) === id;
});

async function submit(coordinator, job) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${coordinator.url}/v1/jobs`, { method: "POST", headers, body: JSON.stringify(job) });
  assert.equal(response.status, 201, await response.clone().text());
  return response.json();
}

test("a standby shows the grid, takes a form and changes many jobs", async () => {
  const [, standby] = await group.leaderFirst();
  const { context, page, errors } = await openUrl(`${standby.url}/grid/coordinators`);
  await isLive(page);
  await namesLeader(page);
  await until("two stand by", async () => (await page.locator("tbody .state", { hasText: "standby" }).count()) === 2);
  await page.goto(`${standby.url}/grid/workers`);
  await page.locator("#worker-worker-1").waitFor();

  await page.goto(`${standby.url}/submit?kind=sum-of-primes`);
  await page.fill('[name="p.a"]', "10");
  await page.fill('[name="p.b"]', "3700000");
  await page.click('button:has-text("Submit job")');
  await page.locator(".title .state", { hasText: "succeeded" }).waitFor();
  await page.locator("#result pre", { hasText: "468476582935" }).waitFor();

  const requires = { labels: { nowhere: "yes" } };
  for (let number = 0; number < 3; number += 1) {
    await submit(standby, { kind: "sleep", params: { seconds: 1 }, tags: { bulk: "yes" }, requires });
  }
  await page.goto(`${standby.url}/jobs?tag=bulk%3Ayes`);
  await isLive(page);
  await until("all are listed", async () => (await page.locator("#jobs tbody tr").count()) === 3);
  await page.click('.selection a:has-text("Cancel")');
  await page.click('button:has-text("Cancel 3 jobs")');
  await page.locator('[role="status"]', { hasText: "3 jobs were canceled." }).waitFor();
  await until("the list shows it", async () => (await page.locator("#jobs .state", { hasText: "canceled" }).count()) === 3);
  assert.deepEqual(errors, []);
  await context.close();
});

/** The leader, and pages of another coordinator: of a job whose first task is done, and of the coordinators. */
async function openAtStandby() {
  for (;;) {
    const [, standby] = await group.leaderFirst();
    const job = await submit(standby, { kind: "sleep", params: { seconds: 0.3, tasks: 30, tasks_per_lease: 1 } });
    const [jobPage, coordinators] = [await openUrl(`${standby.url}/jobs/${job.id}`), await openUrl(`${standby.url}/grid/coordinators`)];
    const done = jobPage.page.locator("#tasks .state", { hasText: "succeeded" });
    await isLive(coordinators.page);
    await done.first().waitFor();
    await namesLeader(coordinators.page);
    const [leader] = await group.leaderFirst();
    if (leader !== standby) return { leader, jobPage, coordinators, done };
    // The lead has moved to it by itself.
    for (const { context } of [jobPage, coordinators]) await context.close();
  }
}

test("pages that are open at a standby while the leader is killed go on with the next leader", async () => {
  const { leader, jobPage, coordinators, done } = await openAtStandby();
  await leader.kill();
  await namesLeader(coordinators.page);
  await jobPage.page.locator(".title .state", { hasText: "succeeded" }).waitFor();
  assert.equal(await done.count(), 30);
  for (const { page, context } of [jobPage, coordinators]) {
    await isLive(page);
    await context.close();
  }
});
