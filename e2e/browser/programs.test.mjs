// Programs on the pages: uploaded by a plain form, run, and their stderr seen.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";

import { axe, tokensFile } from "./helpers.mjs";
import { signIn, useGrid } from "./site.mjs";

let tokens;

const { grid, open } = useGrid(async (directory) => {
  const made = await tokensFile(directory, { runner: "read,submit,programs", submitter: "read,submit" });
  tokens = made.tokens;
  return { workers: 1, environment: { DIVVY_API_TOKENS_FILE: made.file, DIVVY_PROGRAM_DIR: path.join(directory, "worker") } };
});

/** A WASI module that writes a text to stderr. */
function talker(text) {
  const bytes = (words) => [...new TextEncoder().encode(words)];
  const name = (words) => [words.length, ...bytes(words)];
  const section = (id, content) => [id, content.length, ...content];
  const start = [0, 0x41, 2, 0x41, 0, 0x41, 1, 0x41, 20, 0x10, 0, 0x1a, 0x0b];
  return Buffer.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0]),
    ...section(2, [1, ...name("wasi_snapshot_preview1"), ...name("fd_write"), 0, 0]),
    ...section(3, [1, 1]),
    ...section(5, [1, 0, 1]),
    ...section(7, [2, ...name("memory"), 2, 0, ...name("_start"), 0, 1]),
    ...section(10, [1, start.length, ...start]),
    // A vector of 24 and the length at 0; what was written goes to 20.
    ...section(11, [2, 0, 0x41, 0, 0x0b, 8, 24, 0, 0, 0, text.length, 0, 0, 0, 0, 0x41, 24, 0x0b, ...name(text)]),
  ]);
}

async function signedIn(token, options) {
  const opened = await open("/sign-in", options);
  await signIn(opened.page, token);
  await opened.page.waitForURL(`${grid.url}/`);
  return opened;
}

async function upload(page, content) {
  const file = path.join(grid.directory, "program.wasm");
  await writeFile(file, content);
  await page.setInputFiles("#upload", file);
  await page.click('button:has-text("Upload")');
}

test("a program is uploaded and run without scripts, and its stderr is on the job's page", async () => {
  const { page } = await signedIn(tokens.runner, { javaScriptEnabled: false });
  await page.goto(`${grid.url}/submit?kind=program`);
  await upload(page, talker("told on stderr\n"));
  await page.waitForURL(/uploaded=/);
  const hash = await page.inputValue('[name="p.program"]');
  assert.match(hash, /^[0-9a-f]{64}$/);
  const headers = { authorization: `Bearer ${tokens.runner}` };
  const stored = await (await grid.call("GET", `/v1/programs/${hash}`, undefined, headers)).json();
  assert.deepEqual([stored.kind, stored.uploaded_by], ["wasm", "runner"]);

  await page.fill('[name="p.range"]', '{"from": 0, "to": 2, "step": 1}');
  await page.click('button:has-text("Submit job")');
  await page.waitForURL(/\/jobs\//);
  for (let seen = false; !seen; await page.reload()) {
    const text = await page.innerText("#stderr");
    seen = text.includes("Standard error of task 0") && text.includes("told on stderr");
  }
  await page.click("#task-1 a");
  await page.locator("#stderr h2", { hasText: "Standard error of task 1" }).waitFor();
  await page.context().close();
});

test("what is no program is told so beside the form", async () => {
  const { page, errors } = await signedIn(tokens.runner);
  await page.goto(`${grid.url}/submit?kind=program`);
  assert.deepEqual(await axe(page), []);
  await upload(page, "no program");
  await page.locator(".error", { hasText: "neither WebAssembly nor an executable" }).waitFor();
  assert.deepEqual(errors.filter((error) => !error.includes("400")), []);
  await page.context().close();
});

test("a token without the right sees no upload, and is refused one", async () => {
  const { page } = await signedIn(tokens.submitter);
  await page.goto(`${grid.url}/submit?kind=program`);
  assert.equal(await page.locator("#upload").count(), 0);
  assert.ok(await page.locator('button:has-text("Submit job")').isDisabled());
  const multipart = { program: { name: "a", mimeType: "application/octet-stream", buffer: talker("no\n") } };
  const response = await page.request.post(`${grid.url}/submit/program`, { multipart, headers: { origin: grid.url } });
  assert.equal(response.status(), 403);
  await page.context().close();
});
