// Opens an executed notebook, as HTML, in a real browser, and prints what is visible of its progress bars as JSON. The test
// of the Python package runs it: node notebook.mjs FILE

import { pathToFileURL } from "node:url";

import { PATIENCE_MS, startBrowser } from "./helpers.mjs";

const browser = await startBrowser();
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  // The page names scripts of other hosts, which a bar does not need.
  await page.route(/^https?:/, (route) => route.abort());
  await page.goto(pathToFileURL(process.argv[2]).href, { waitUntil: "domcontentloaded" });
  const bars = page.getByRole("progressbar");
  await bars.first().waitFor({ state: "visible" });
  const seen = [];
  for (const bar of await bars.all()) {
    const [track, filled] = [bar.locator("> div"), bar.locator("> div > div")];
    const color = (element) => element.evaluate((node) => getComputedStyle(node).backgroundColor);
    seen.push({
      isVisible: await bar.isVisible(),
      text: (await bar.textContent()).trim(),
      value: await bar.getAttribute("aria-valuenow"),
      track: await track.boundingBox(),
      filled: await filled.boundingBox(),
      colors: [await color(track), await color(filled)],
    });
  }
  process.stdout.write(JSON.stringify(seen));
} finally {
  await browser.close();
}
