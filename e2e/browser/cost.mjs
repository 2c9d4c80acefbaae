// What open dashboards cost: processor time of the grid and its tasks a second, without viewers and with five. Not a test:
//   BROWSER_MODULES=$PWD/target/browser node e2e/browser/cost.mjs

import { readFile } from "node:fs/promises";

import { Grid, startBrowser } from "./helpers.mjs";

const ROUNDS = 3;
const MEASURED_MS = 15_000;
const TICKS_PER_SECOND = 100;

const wait = (ms) => new Promise((resume) => setTimeout(resume, ms));

async function processorSeconds(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

const browser = await startBrowser();
const grid = await Grid.start({ workers: 1 });
const { jobs } = await (await grid.call("POST", "/v1/simulate", { tasks: 900_000, seconds: 0.5, workers: 200 })).json();
const done = async () => (await grid.job(jobs[0].id)).tasks.succeeded;
for (let round = 0; round < ROUNDS; round += 1) {
  for (const viewers of [0, 5]) {
    const contexts = [];
    for (let number = 0; number < viewers; number += 1) {
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(grid.url);
      await page.locator('#live[data-is="live"]').waitFor();
      contexts.push(context);
    }
    const [cpu, tasks, at] = [await processorSeconds(grid.process.pid), await done(), Date.now()];
    await wait(MEASURED_MS);
    const seconds = (Date.now() - at) / 1000;
    const share = ((await processorSeconds(grid.process.pid)) - cpu) / seconds;
    const rate = ((await done()) - tasks) / seconds;
    console.log(`${viewers} viewers: ${(share * 100).toFixed(1)} % of a core, ${rate.toFixed(0)} tasks a second`);
    for (const context of contexts) await context.close();
  }
}
await browser.close();
await grid.stop();
