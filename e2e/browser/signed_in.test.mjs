// The dashboard where tokens are demanded.

import assert from "node:assert/strict";
import { test } from "node:test";

import { axe, tokensFile } from "./helpers.mjs";
import { isLive, signIn, useGrid } from "./site.mjs";

let tokens;

const { grid, open } = useGrid(async (directory) => {
  const made = await tokensFile(directory, { reader: "read", submitter: "read,submit" });
  tokens = made.tokens;
  return { workers: 1, environment: { DIVVY_API_TOKENS_FILE: made.file } };
});

test("a visitor is led to sign in and back, and a wrong token is told", async () => {
  const { context, page } = await open("/jobs?state=failed");
  assert.equal(new URL(page.url()).pathname, "/sign-in");
  await signIn(page, "divvy_wrong");
  await page.locator(".wrong", { hasText: "does not know the token" }).waitFor();
  assert.deepEqual(await axe(page), []);
  await signIn(page, tokens.submitter);
  await page.waitForURL(/\/jobs\?state=failed/);
  const [cookie] = await context.cookies();
  assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite], ["divvy_token", true, "Strict"]);
  assert.equal(await page.evaluate(() => document.cookie), "");
  await isLive(page);
  await page.goto(`${grid.url}/submit?kind=sleep`);
  await page.fill('[name="p.seconds"]', "0");
  await page.click('button:has-text("Submit job")');
  await page.locator(".title .state", { hasText: "succeeded" }).waitFor();
  await page.click('button:has-text("Sign out")');
  await page.waitForURL(/\/sign-in/);
  await page.goto(`${grid.url}/`);
  assert.equal(new URL(page.url()).pathname, "/sign-in");
  await context.close();
});

test("a page whose visitor is signed out says so, also after a restart, and goes on once they are back", async () => {
  const { context, page } = await open("/");
  await signIn(page, tokens.reader);
  await page.waitForURL(`${grid.url}/`);
  await isLive(page);
  const other = await context.newPage();
  await other.goto(`${grid.url}/jobs`);
  await other.click('button:has-text("Sign out")');
  await other.waitForURL(/\/sign-in/);
  const out = page.locator('#live[data-is="out"]', { hasText: "signed out" });
  await out.waitFor();
  await grid.kill("SIGKILL");
  await page.locator('#live[data-is="lost"]').waitFor();
  await grid.run(grid.port);
  await out.waitFor();
  await signIn(other, tokens.reader);
  await other.waitForURL(`${grid.url}/`);
  await isLive(page);
  await context.close();
});

test("a token that may only read sees no way to change, and is refused one", async () => {
  const { context, page } = await open("/");
  const headers = { authorization: `Bearer ${tokens.submitter}` };
  const job = await grid.submit({ kind: "sleep", params: { seconds: 600 } }, headers);
  await signIn(page, tokens.reader);
  await page.waitForURL(`${grid.url}/`);
  await page.goto(`${grid.url}/jobs/${job.id}`);
  assert.equal(await page.locator(".actions").count(), 0);
  await page.goto(`${grid.url}/submit`);
  assert.ok(await page.locator('button:has-text("Submit job")').isDisabled());
  const response = await page.request.post(`${grid.url}/jobs/${job.id}/cancel`, { headers: { origin: grid.url } });
  assert.equal(response.status(), 403);
  assert.match(await response.text(), /lacks the right/);
  await context.close();
});

test("an address without a page is told to those who are signed in, and a refused change is asked again after signing in", async () => {
  const { context, page } = await open("/nosuch?a=1");
  await signIn(page, tokens.submitter);
  await page.locator("h1", { hasText: "Not found" }).waitFor();
  assert.equal(new URL(page.url()).pathname, "/nosuch");
  const job = await grid.submit({ kind: "sleep", params: { seconds: 600 } }, { authorization: `Bearer ${tokens.submitter}` });
  await page.goto(`${grid.url}/jobs/${job.id}`);
  await isLive(page);
  await page.click("#do-cancel");
  await page.locator("dialog").waitFor();
  await context.clearCookies();
  await page.click('dialog button:has-text("Cancel job")');
  await signIn(page, tokens.submitter);
  await page.click('button:has-text("Cancel job")');
  await page.locator(".title .state", { hasText: "canceled" }).waitFor();
  await context.close();
});

test("the cookie counts for pages alone: the interface wants the header", async () => {
  const cookie = `divvy_token=${tokens.submitter}`;
  assert.equal((await grid.call("GET", "/v1/jobs", undefined, { cookie })).status, 401);
  assert.equal((await grid.call("GET", "/jobs", undefined, { cookie })).status, 200);
});
