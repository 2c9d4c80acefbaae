// The common set-up of a file's tests: a browser, and a grid that it shows.

import { after, before } from "node:test";

import { Grid, PATIENCE_MS, collectErrors, startBrowser } from "./helpers.mjs";

export const isLive = (page) => page.locator('#live[data-is="live"]').waitFor();

/** A browser for all tests of a file, which starts before the first one. */
export function useBrowser() {
  let browser;
  before(async () => {
    browser = await startBrowser();
  });
  after(() => browser?.close());

  async function newContext(options) {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE_MS);
    return context;
  }

  /** A page in a context of its own, which `prepare` may change before it is opened. */
  async function openUrl(url, { prepare = async () => {}, ...options } = {}) {
    const context = await newContext(options);
    await prepare(context);
    const page = await context.newPage();
    const errors = collectErrors(page);
    await page.goto(url);
    return { context, page, errors };
  }

  return { newContext, openUrl };
}

/** A browser and a grid for all tests of a file. `prepare` gets the grid's directory and says how the grid is started. */
export function useGrid(prepare = () => ({})) {
  const { newContext, openUrl } = useBrowser();
  const grid = new Grid();
  before(() => grid.begin(prepare));
  after(() => grid.stop());

  const open = (target, options) => openUrl(grid.url + target, options);

  /** The same once the page follows the grid. */
  async function openLive(target, options) {
    const opened = await open(target, options);
    await isLive(opened.page);
    return opened;
  }

  return { grid, newContext, open, openLive };
}

/** Clicks on an element that leads to another page, and waits until that page's scripts run. */
export async function clickAndLoad(page, selector) {
  await Promise.all([page.waitForEvent("load"), page.click(selector)]);
}

/** Shows the token that the page asks for. */
export async function signIn(page, token) {
  await page.fill("#token", token);
  await page.click('button:has-text("Sign in")');
}
