// Works the live cells of the built book in headless Chromium, as readers do: served, and opened as files.
//
//     npm ci --prefix tools && jupyter-book build . && node tools/try_live_cells.mjs [_build/html]
//
// Served: each exercise that a cell checks fails with what its cell begins with, by a message, and passes with the
// solution that the book folds away; each playground answers; the index counts. As files, in the dark and 390 px wide, the
// chapters with a playground do the same. In both an endless loop is stopped, Python comes back, the keyboard gets in and
// out, axe-core finds nothing, nothing is asked of another site. Prints what a first visit waits for and fetches, and a second one.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const site = resolve(process.argv[2] ?? "_build/html");
const FEW = 5; // exercises at least
const MOST = 7e6; // bytes of a first use, compressed
const problems = [];

const pages = readdirSync(join(site, "chapters")).filter((name) => /^[\w-]+\.html$/.test(name)).map((name) => `chapters/${name}`)
  .filter((name) => /class="cell [^"]*\btag_live\b/.test(readFileSync(join(site, name), "utf8")));
const executablePath = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
if (!pages.length) throw new Error(`no live cells in ${site}: build the book first`);
if (!executablePath) throw new Error("no Chromium found: install Debian's chromium");

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
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const served = {
  name: "served",
  root: `http://127.0.0.1:${server.address().port}/`,
  look: { colorScheme: "light", viewport: { width: 1280, height: 800 } },
};
const opened = {
  name: "as a file",
  root: `${pathToFileURL(site).href}/`,
  look: { colorScheme: "dark", viewport: { width: 390, height: 800 } },
};

// What a reader sees of a cell, and does with it.
class Cell {
  constructor(page, locator) {
    Object.assign(this, { page, locator, field: locator.locator("textarea"), says: locator.locator(".live-says"), out: locator.locator(".live-out") });
  }
  button(name) {
    return this.locator.locator(".live-bar").first().getByRole("button", { name });
  }
  async run(source) {
    if (source !== undefined) await this.field.fill(source);
    await this.button(/Run|Check/).click();
    return this.said();
  }
  // What is said in the end: not that Python starts, nor that it runs.
  async said() {
    const end = this.says.filter({ hasText: /^(?!.*…$).+/ });
    await end.waitFor({ timeout: 60_000 });
    return end.innerText();
  }
}

async function open(context, way, name, fail) {
  const page = await context.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && fail(`console: ${message.text()}`));
  page.on("pageerror", (error) => fail(`error: ${error.message}`));
  page.asked = new Set();
  page.on("request", (request) => {
    if (request.url().startsWith(way.root)) page.asked.add(request.url().slice(way.root.length).split("?")[0]);
    else if (!/^(data|blob):/.test(request.url())) fail(`asks elsewhere: ${request.url()}`);
  });
  await page.goto(way.root + name);
  return page;
}

// The live cells of a page: its exercises with their solutions by number, and its playgrounds.
async function cellsOf(page) {
  const solutions = await page.locator(".tag_solution .cell_input pre").allTextContents();
  const found = { exercises: [], others: [] };
  for (const locator of await page.locator(".tag_live").all()) {
    const cell = new Cell(page, locator);
    const number = /check\(\s*["'](\w+\.\d+)["']/.exec(await cell.field.inputValue())?.[1];
    const solution = solutions.find((each) => new RegExp(`check\\(\\s*["']${number}["']`).test(each));
    if (!number) found.others.push(cell);
    else found.exercises.push(Object.assign(cell, { number, solution }));
  }
  return found;
}

async function answer(cell, fail) {
  const first = await cell.run();
  if (first !== "Not yet.") fail(`${cell.number} says ${first} before anything is written`);
  if (!(await cell.out.innerText()).includes(`✗ ${cell.number}`)) fail(`${cell.number} fails without a message`);
  if (!cell.solution) return false; // its answer is a number, told in words
  const second = await cell.run(cell.solution);
  if (second !== "Right.") fail(`${cell.number}: the solution of the book is not right: ${await cell.out.innerText()}`);
  await cell.button("Hint").click();
  await cell.locator.locator(".live-hints", { hasText: /Hint 1 of/ }).waitFor();
  return true;
}

// Python that never ends is stopped, and the next run is well; an error is told at the reader's own line.
async function stumble(cell, fail) {
  await cell.field.fill("while True: pass");
  await cell.button(/Run|Check/).click();
  await cell.says.filter({ hasText: "Running" }).waitFor();
  await cell.page.waitForTimeout(300); // it runs, by now
  await cell.button("Stop").click();
  if (!/^Stopped\./.test(await cell.said())) fail(`Stop says ${await cell.said()}`);
  const wrong = await cell.run("x = 1\n\nx / 0\n");
  if (wrong !== "It fails in line 3.") fail(`an error in line 3 is told so: ${wrong}`);
  if ((await cell.locator.locator(".live-lines .wrong").innerText()) !== "3") fail("the line of the error is not marked");
  await cell.run("import runner\nrunner.SECONDS = 0.5");
  if (!/line 4/.test(await cell.run("def f():\n    try:\n        while True:\n            pass\n    except Exception:\n        f()\nf()"))) {
    fail(`what never ends is not stopped in its line: ${await cell.out.innerText()}`);
  }
  if (/runner|_pyodide/.test(await cell.out.innerText())) fail(`an error shows lines that are not the reader's: ${await cell.out.innerText()}`);
}

// A run of the reader's own is played by the book's player.
const RUN = `from kvpaged import EventLog, PagedKVCache
from kvpaged.figures import TracePlayer
cache = PagedKVCache(8, 4, events=EventLog())
cache.sequence(range(6)).release()
TracePlayer(cache.events, 4, 8)`;
async function replay(cell, fail) {
  await cell.run(RUN);
  const player = cell.out.locator(".kvt[data-ready]");
  await player.focus();
  await cell.page.keyboard.press("Home");
  await cell.page.keyboard.press("ArrowRight");
  if ((await player.getAttribute("data-event")) !== "1") fail("a player in a live cell does not play");
}

// In by typing, on by Ctrl and Enter, out by Escape and Tab.
async function type(cell, fail) {
  const keyboard = cell.page.keyboard;
  await cell.field.fill("");
  await cell.field.focus();
  await keyboard.type("def f():");
  await keyboard.press("Enter");
  await keyboard.type("return 6 * 7");
  await keyboard.press("Enter");
  await keyboard.press("Backspace");
  await keyboard.type("f()");
  if ((await cell.field.inputValue()) !== "def f():\n    return 6 * 7\nf()") fail(`typed: ${await cell.field.inputValue()}`);
  await keyboard.press("Control+a");
  await keyboard.press("Tab");
  await keyboard.press("Shift+Tab");
  if ((await cell.field.inputValue()) !== "def f():\n    return 6 * 7\nf()") fail(`moved there and back: ${await cell.field.inputValue()}`);
  await keyboard.press("Control+Enter");
  await cell.out.filter({ hasText: /^42$/ }).waitFor();
  await keyboard.press("Escape");
  await keyboard.press("Tab");
  if (await cell.field.evaluate((field) => field === document.activeElement)) fail("the keyboard does not get out of the editor");
  await cell.button("Reset").click();
}

async function play(cell, fail) {
  await cell.run();
  const board = cell.locator.locator(".live-playground");
  const before = [await board.getByRole("status").innerText(), await board.locator("svg").innerHTML()];
  const button = board.getByRole("button").first();
  if (await button.count()) {
    await button.click();
  } else {
    await board.getByRole("textbox").last().fill("Bo hid the map");
    await cell.page.keyboard.press("Tab");
  }
  await board.getByRole("status").filter({ hasNotText: before[0] }).waitFor().catch(() => fail("the playground does not answer"));
  if ((await board.locator("svg").innerHTML()) === before[1]) fail("the playground draws nothing new");
}

async function look(page, way, fail) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > way.look.viewport.width) fail(`the page is ${wide} pixels wide`);
  const shifted = await page.evaluate(() => [...document.querySelectorAll(".live-code")].some((code) => {
    const [seen, field] = [...code.children].map((each) => each.getBoundingClientRect());
    return Math.abs(seen.height - field.height) > 1 || seen.left !== field.left || seen.top !== field.top;
  }));
  if (shifted) fail("the letters of an editor do not lie where they are typed");
  await page.addScriptTag({ path: axe });
  const found = await page.evaluate(() => axe.run({ include: [[".tag_live"]] }, { resultTypes: ["violations"], preload: false }));
  for (const { impact, help, nodes } of found.violations) fail(`axe, ${impact}: ${help}, at ${nodes[0].html.slice(0, 120)}`);
}

const seconds = (since) => ((performance.now() - since) / 1000).toFixed(1);

// Whether the browser keeps Python.
const kept = () => new Promise((resolve) => {
  const opening = indexedDB.open("kvpaged", 1);
  opening.onsuccess = () => {
    const counting = opening.result.transaction("python").objectStore("python").count();
    counting.onsuccess = () => resolve(counting.result === 1);
    opening.result.close();
  };
});

// First use, then again in a new tab: what it takes until the first exercise has its verdict.
async function measure(context, way, name, fail) {
  const times = [];
  let fetched = 0;
  for (const visit of [1, 2]) {
    const page = await open(context, way, name, fail);
    const { exercises, others } = await cellsOf(page);
    const before = new Set(page.asked);
    const since = performance.now();
    await (exercises[0] ?? others[0]).run();
    times.push(seconds(since));
    const more = [...page.asked].filter((each) => !before.has(each));
    const bytes = more.reduce((sum, each) => sum + gzipSync(readFileSync(join(site, each))).length, 0);
    if (visit === 1) fetched = bytes;
    else if (bytes) fail(`a second visit fetches ${more}`);
    if (visit === 1) await page.waitForFunction(kept); // a moment later
    await page.close();
  }
  if (fetched > MOST) fail(`the first use fetches ${fetched} bytes, compressed`);
  console.log(`${way.name}: the first verdict ${times[0]} s after the click, ${(fetched / 1e6).toFixed(1)} MB fetched; at the second visit after ${times[1]} s`);
}

const solved = new Set();
let live = 0;

// Works all cells of some pages; those of the first with clumsy hands, too.
async function walk(context, way, names, at) {
  for (const name of names) {
    const fail = at(name);
    const page = await open(context, way, name, fail);
    const { exercises, others } = await cellsOf(page);
    if (way === served) live += exercises.length;
    for (const cell of exercises) if ((await answer(cell, fail)) && way === served) solved.add(cell.number);
    for (const cell of others) await play(cell, fail);
    await look(page, way, fail);
    if (name === names[0]) {
      const cell = new Cell(page, page.locator(".tag_live").first());
      await stumble(cell, fail);
      await replay(cell, fail);
      await type(cell, fail);
    }
    await page.close();
  }
}

async function count(context, fail) {
  const page = await open(context, served, "chapters/index.html", fail);
  const counted = await page.locator("#progress").innerText();
  if (!counted.startsWith(`${solved.size} of ${live} exercises`)) fail(`counts ${counted}, where ${solved.size} were answered`);
}

const walks = [];
for (const way of [served, opened]) {
  const context = await browser.newContext(way.look);
  const at = (name) => (what) => problems.push(`${way.name}, ${name}: ${what}`);
  await measure(context, way, pages[0], at(pages[0]));
  const names = way === served ? pages : pages.filter((name) => /playground/.test(readFileSync(join(site, name), "utf8")));
  walks.push(async () => {
    await walk(context, way, names, at);
    if (way === served) await count(context, at("index"));
  });
}
await Promise.all(walks.map((start) => start())); // after the measures: each has a core
// Without a script the page says what would be here, and shows what the cells last gave.
const context = await browser.newContext({ javaScriptEnabled: false });
const page = await open(context, served, pages[0], (what) => problems.push(`without a script: ${what}`));
if (!/JavaScript/.test(await page.locator(".live-note").innerText())) problems.push("without a script nothing says what would be here");
if (!(await page.locator(".tag_live .cell_output").first().isVisible())) problems.push("without a script a cell shows no output");
if (solved.size < FEW) problems.push(`${solved.size} exercises were solved in their pages, and should be ${FEW} at least`);
await browser.close();
server.close();
console.log([...new Set(problems)].join("\n") || `${solved.size} exercises are answered in the page, in ${pages.length} chapters`);
process.exit(problems.length ? 1 : 0);
