// Opens every page of the built book in headless Chromium, as readers do: light and dark, wide and phone.
//
//     node tools/browse_site.mjs [_build/html]
//
// Needs playwright-core and axe-core where Node finds them (NODE_PATH), and Debian's chromium. Fails on an error in the
// console, a request to elsewhere, a page wider than its window, anything serious that axe-core finds, and a player that
// does not step, play, scrub and obey the keyboard, or does not end where the run itself ended.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";

const require = createRequire(join(process.env.NODE_PATH ?? ".", "x.js"));
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");
const site = resolve(process.argv[2] ?? "_build/html");
const pages = readdirSync(join(site, "chapters")).filter((name) => name.endsWith(".html")).sort();
const executablePath = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };

const server = createServer(async (request, response) => {
  try {
    const path = join(site, decodeURIComponent(new URL(request.url, "http://x").pathname));
    const body = await readFile(path);
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const base = `http://127.0.0.1:${server.address().port}/`;

// What a player's pictures show: page numbers, owners and words, the pages last.
const shown = (players) =>
  players.map((player) => [...player.querySelectorAll("svg")].map((svg) => svg.textContent).join(""));

// Runs in the page: drives each player, and says what it did not do.
const drive = async () => {
  const problems = [];
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  for (const [index, player] of [...document.querySelectorAll(".kvt")].entries()) {
    const fail = (what) => problems.push(`player ${index}: ${what}`);
    const at = () => Number(player.dataset.event);
    const press = (key) => player.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    const control = (name) => player.querySelector(`[data-do="${name}"]`);
    press("Home");
    if (at() !== 0) fail("Home does not go to the beginning");
    press("ArrowRight");
    if (at() !== 1) fail("the right arrow does not step");
    control("back").click();
    if (at() !== 0) fail("Back does not step back");
    control("step").click();
    if (at() !== 1) fail("Step does not step");
    control("play").click();
    await wait(1500);
    if (at() < 2) fail("Play does not play");
    if (control("play").textContent !== "Play") control("play").click();
    const scrub = control("scrub");
    scrub.value = Math.floor(Number(scrub.max) / 2);
    scrub.dispatchEvent(new Event("input", { bubbles: true }));
    if (at() !== Number(scrub.value)) fail("the slider does not scrub");
    press("End");
    if (at() !== Number(scrub.max)) fail("End does not go to the end");
    if (!player.dataset.sentence) fail("no sentence says what happened");
  }
  return problems;
};

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
let failed = 0;
for (const name of pages) {
  const url = `${base}chapters/${name}`;
  const still = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
  await still.goto(url);
  // The page as it is without a script: each player shows the end of its run, drawn by the package itself.
  const ends = await still.locator(".kvt").evaluateAll(shown);
  await still.context().close();
  // Two visits cover both themes and both widths, in half the time of four.
  for (const [colorScheme, width] of [["light", 1280], ["dark", 360]]) {
    const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
    await context.addInitScript((mode) => {
      localStorage.setItem("mode", mode);
      localStorage.setItem("theme", mode);
    }, colorScheme);
    const page = await context.newPage();
    const problems = [];
    page.on("console", (message) => message.type() === "error" && problems.push(`console: ${message.text()}`));
    page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
    page.on("request", (request) => /^(data|blob):/.test(request.url()) || request.url().startsWith(base) ||
      problems.push(`asks elsewhere: ${request.url()}`));
    await page.goto(url, { waitUntil: "networkidle" });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > width) problems.push(`the page is ${wide} pixels wide in a window of ${width}`);
    await page.addScriptTag({ path: axe });
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const each of found.violations) {
      if (["serious", "critical"].includes(each.impact)) {
        problems.push(`axe, ${each.impact}: ${each.help}, at ${each.nodes[0].html.slice(0, 120)}`);
      }
    }
    if (colorScheme === "light") { // once is enough
      problems.push(...(await page.evaluate(drive)));
      const reached = await page.locator(".kvt").evaluateAll(shown);
      reached.forEach((end, index) => {
        // (The strip of contiguous memory beside the pages has its words in other places when a script draws it.)
        if (!end || !ends[index].endsWith(end)) problems.push(`player ${index} ends at ${end}, the run at ${ends[index]}`);
      });
    }
    await context.close();
    failed += problems.length;
    for (const problem of new Set(problems)) console.log(`${name}, ${colorScheme}, ${width} px: ${problem}`);
  }
  if (ends.length) console.log(`${name}: ${ends.length} player${ends.length > 1 ? "s" : ""} driven`);
}
await browser.close();
server.close();
console.log(failed ? `${failed} problems` : `${pages.length} pages are well in light and dark, wide and on a phone`);
process.exit(failed ? 1 : 0);
