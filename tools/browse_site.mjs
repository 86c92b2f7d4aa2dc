// Opens every page of the built book in headless Chromium, as readers do: light and wide, dark and on a phone.
//
//     npm ci --prefix tools && node tools/browse_site.mjs [_build/html]
//
// Fails on any word in the console (nothing is stored: each is a first visit), a request to elsewhere, a page that
// fetches more than 400 kB, one wider than its window, words under ten pixels, code cut on a desk or on paper, a search
// that finds another page first, a button that shows no focus, anything serious that axe-core finds, and a player that
// does not step, play, scrub and obey the keyboard, says nothing of a step, or does not end where the run itself ended.
// Debian's chromium is the browser: none is downloaded.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const site = resolve(process.argv[2] ?? "_build/html");
const TABS = 2; // for each way to read: much of a visit is waiting for the network to fall silent
const ways = [
  { colorScheme: "light", viewport: { width: 1265, height: 800 }, reducedMotion: "no-preference" }, // 1280, less a scroll bar
  { colorScheme: "dark", viewport: { width: 360, height: 800 }, reducedMotion: "reduce" },
];
const problems = [];
let players = 0;

const pages = readdirSync(site, { recursive: true })
  .filter((name) => name.endsWith(".html") && !name.startsWith("_static"))
  .filter((name) => !["index.html", "404.html"].includes(name)); // one leads on at once, the other needs its own server
const executablePath = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
if (!pages.length) throw new Error(`no pages in ${site}: build the book first`);
if (!executablePath) throw new Error("no Chromium found: install Debian's chromium");

const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };
const server = createServer(async (request, response) => {
  try {
    const { pathname } = new URL(request.url, "http://x");
    if (pathname === "/favicon.ico") return response.writeHead(204).end(); // asked for by the browser, not by a page
    const path = join(site, decodeURIComponent(pathname));
    const body = await readFile(path);
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const base = `http://127.0.0.1:${server.address().port}/`;

// What a player's pictures show: page numbers, owners and words, the pages last.
const shown = (all) => all.map((player) => [...player.querySelectorAll("svg")].map((svg) => svg.textContent.replace(/\s/g, "")).join(""));

// The page as it is without a script: each player shows the end of its run, drawn by the package itself.
async function endsWithoutScript(name) {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(base + name);
  const ends = await page.locator(".kvt").evaluateAll(shown);
  await context.close();
  return ends;
}

// axe-core looks at every word. Of a thousand words of code in one style, one is enough: the others become plain text.
const thinCode = () => {
  const seen = new Set();
  for (const span of document.querySelectorAll(".highlight pre span")) {
    const block = span.closest(".highlight").parentElement;
    const style = [span.className, block.className, block.parentElement.className].join();
    if (seen.has(style)) span.replaceWith(...span.childNodes);
    seen.add(style);
  }
};

// Works a player with mouse and keyboard, and says what it did not do.
async function drive(page, player, end, fail) {
  const control = (name) => player.locator(`[data-do="${name}"]`);
  const at = async () => Number(await player.getAttribute("data-event"));
  const expect = async (what, wanted) => {
    if ((await at()) !== wanted) fail(`${what} leads to event ${await at()}, not ${wanted}`);
  };
  const { stops, opening } = JSON.parse(await player.locator('script[type="application/json"]').textContent());
  const last = Number(await control("scrub").getAttribute("max"));
  const press = (key) => page.keyboard.press(key);
  await player.focus();
  await expect("opening the page", opening);
  await press("Home");
  await press("ArrowRight");
  await expect("the right arrow", 1);
  await press("ArrowLeft");
  await expect("the left arrow", 0);
  await press("Shift+ArrowRight");
  await expect("shift and the right arrow", stops[0] ?? last);
  await press("Home");
  await expect("Home", 0);
  await control("step").click();
  await expect("Step", 1);
  await control("back").click();
  await expect("Back", 0);
  await control("next").click();
  await expect("Next mark", stops[0] ?? last);
  await press("Home");
  await control("stop").uncheck();
  await control("speed").selectOption("16");
  await control("play").click();
  await page.waitForFunction((root) => root.dataset.event > 1, await player.elementHandle()).catch(() => fail("Play does not play"));
  if ((await control("play").textContent()) === "Pause") await control("play").click();
  await control("scrub").fill(String(Math.floor(last / 2)));
  await expect("the slider", Math.floor(last / 2));
  const silent = await player.evaluate((root, last) => {
    const scrub = root.querySelector('[data-do="scrub"]');
    return [...Array(last + 1).keys()].filter((position) => {
      scrub.value = position;
      scrub.dispatchEvent(new Event("input"));
      const said = root.querySelector(".say").textContent;
      return !/[.”]$/.test(said) || /undefined|\bnull\b(?! page)|NaN/.test(said);
    });
  }, last);
  if (silent.length) fail(`no sentence says what happened at ${silent}`);
  await player.focus();
  await press("End");
  await expect("End", last);
  const [reached] = await player.evaluateAll(shown);
  // (The strip of contiguous memory beside the pages has its words in other places when a script draws it.)
  if (!reached || !end.endsWith(reached)) fail(`ends at ${reached}, the run at ${end}`);
}

// What a page weighs on its first visit, when a server compresses it: at most this many bytes. Up to 240,000 of them are
// MathJax with its fonts, where there is a formula.
const HEAVIEST = 400_000;
const weights = new Map();
function weight(url) {
  const path = join(site, decodeURIComponent(new URL(url).pathname));
  if (!weights.has(path)) weights.set(path, existsSync(path) ? gzipSync(readFileSync(path)).length : 0);
  return weights.get(path);
}

// Words too small to read, listings, tables, pictures and names that hide their ends, and columns of a few letters.
const unreadable = (wide) => {
  const small = [...document.querySelectorAll("article svg text")].find((text) =>
    text.getScreenCTM() && parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a < 9.9);
  const walker = document.createTreeWalker(document.querySelector("article") ?? document.body, NodeFilter.SHOW_TEXT);
  let tiny = null;
  while (!tiny && walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && !parent.closest("svg, script, style, mjx-container, noscript") && parseFloat(getComputedStyle(parent).fontSize) < 10) tiny = parent;
  }
  const cut = wide && [...document.querySelectorAll("div.cell_output .highlight pre, article table")].find((each) => each.scrollWidth > each.clientWidth + 1);
  const clipped = wide && [...document.querySelectorAll(".bd-sidebar-secondary a *")].find((each) => each.getBoundingClientRect().right > innerWidth);
  const hidden = wide && [...document.querySelectorAll("article .kvs")].find((each) => // the map, strips, grids
    each.scrollWidth > each.clientWidth + 1 && parseFloat(each.firstElementChild.style.width) <= 756)?.firstElementChild;
  const bent = !wide && [...document.querySelectorAll("article .columns pre")].find((each) => getComputedStyle(each).whiteSpace !== "pre");
  const narrow = [...document.querySelectorAll("article table.table td")].find((each) => each.clientWidth < 60 && each.textContent.trim().length > 12);
  return [small && `"${small.textContent}" in a picture is under 10 px`, tiny && `"${tiny.textContent}" is under 10 px`,
    bent && `the lines of a printed table are broken: ${bent.textContent.trim().slice(0, 60)}`,
    narrow && `a column of a table is ${narrow.clientWidth} px wide: ${narrow.textContent.trim().slice(0, 60)}`,
    hidden && `a picture of ${hidden.style.width} hides its end: ${hidden.getAttribute("aria-label").slice(0, 60)}`,
    clipped && `the list of contents leaves the window: ${clipped.textContent}`,
    cut && `a listing or table hides its end: ${cut.textContent.trim().slice(0, 60)}`].filter(Boolean);
};

// On paper folded text is open, players show their moments, no line of code is cut, and what is long may go on overleaf.
const onPaper = () => {
  dispatchEvent(new Event("beforeprint"));
  const folded = document.querySelectorAll("details:not([open])").length;
  const still = document.querySelectorAll(".kvt:not(:has(> .moments > div))").length;
  const cut = [...document.querySelectorAll("article pre")].filter((each) => each.scrollWidth > each.clientWidth + 1).length;
  const stiff = [...document.querySelectorAll("article :is(pre, table, figure:has(.kvt))")].filter((each) =>
    each.offsetHeight > 600 && [each, each.parentElement, each.parentElement.parentElement].some((one) => getComputedStyle(one).breakInside === "avoid")).length;
  dispatchEvent(new Event("afterprint"));
  return { folded, still, cut, stiff };
};

async function visit(page, name, way) {
  const fail = (what) => problems.push(`${name}, ${way.colorScheme}, ${way.viewport.width} px: ${what}`);
  page.removeAllListeners();
  const asked = new Set();
  page.on("console", (message) => fail(`console: ${message.text()}`));
  page.on("pageerror", (error) => fail(`error: ${error.message}`));
  page.on("request", (request) => {
    if (request.url().startsWith(base)) asked.add(request.url());
    else if (!/^(data|blob):/.test(request.url())) fail(`asks elsewhere: ${request.url()}`);
  });
  await page.goto(base + name); // its scripts have run
  await page.waitForLoadState("networkidle");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  if (wide > way.viewport.width) fail(`the page is ${wide} pixels wide`);
  const bytes = [...asked].reduce((sum, url) => sum + weight(url), 0);
  if (bytes > HEAVIEST) fail(`a first visit fetches ${bytes} bytes, compressed`);
  for (const fault of await page.evaluate(unreadable, way.viewport.width > 1000)) fail(fault);
  if (way === ways[0] && !name.startsWith("_modules")) {
    await page.emulateMedia({ media: "print" });
    const paper = await page.evaluate(onPaper);
    if (paper.folded || paper.still || paper.cut || paper.stiff) fail(`on paper: ${JSON.stringify(paper)}`);
    await page.emulateMedia({ media: null });
  }
  await page.evaluate(thinCode);
  await page.addScriptTag({ path: axe });
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const { impact, help, nodes } of found.violations) {
    if (["serious", "critical"].includes(impact)) fail(`axe, ${impact}: ${help}, at ${nodes[0].html.slice(0, 120)}`);
  }
  const here = await page.locator(".kvt").all();
  if (here.length && way.reducedMotion === "reduce") {
    const moving = await page.evaluate(() => document.getAnimations().length +
      [...document.querySelectorAll(".kvt *")].filter((each) => getComputedStyle(each).transitionDuration !== "0s").length);
    if (moving) fail(`${moving} things move although the reader wants no motion`);
  } else if (here.length) {
    const ends = await endsWithoutScript(name);
    for (const [index, player] of here.entries()) {
      await drive(page, player, ends[index], (what) => fail(`player ${index + 1}: ${what}`));
    }
    players += here.length;
  }
}

// What readers look for, and the chapters that explain it: one of them comes first, or second to the glossary.
const SOUGHT = {
  "RoPE": ["attention"], "GQA": ["attention"], "fragmentation": ["naive-cache", "pages"], "slot mapping": ["pages"],
  "reference count": ["page-pool"], "page table": ["page-table"], "paged attention": ["paged-attention"],
  "seq_lens": ["paged-attention", "kernel"], "online softmax": ["paged-attention"], "eviction": ["prefix-cache"],
  "hash collision": ["sharing-with-strangers"], "cache salt": ["sharing-with-strangers"], "forks": ["copy-on-write"],
  "copy-on-write": ["copy-on-write"], "copy_on_write": ["copy-on-write"], "copy on write": ["copy-on-write"],
  "preemption": ["serving"], "scheduler": ["serving"], "sampling": ["serving"], "continuous batching": ["serving"],
  "speculative decoding": ["serving"], "chunked prefill": ["serving"], "time to first token": ["serving"], "top_p": ["serving"],
  "block table": ["page-table"], "memory leak": ["museum"], "running out of pages": ["serving", "page-pool"],
  "sliding window": ["layers-of-several-kinds"], "quantization": ["pages-of-fewer-bits"], "LMCache": ["a-second-tier"],
  "batch invariance": ["same-bits"], "kernel": ["kernel"], "transformers": ["real-models", "from-here-to-vllm"],
};

async function search(page, words, chapters) {
  await page.goto(`${base}search.html?q=${encodeURIComponent(words)}`);
  const found = await page.locator("#found h2 a").evaluateAll((links) =>
    links.map((link) => link.getAttribute("href").replace(/^chapters\/(\d\d-)?|\.html$/g, "")));
  const rank = found.filter((name) => name !== "glossary").findIndex((name) => chapters.includes(name));
  if (rank) problems.push(`search for ${words}: ${chapters.join(" or ")} is not first, but ${found.slice(0, 4).join(", ") || "nothing"}`);
  const snippets = await page.locator("#found p").allTextContents();
  const strange = snippets.find((text) => /Bookkeeping decides|prompts in, tokens out|Show the source|\\[a-z]+\{/.test(text));
  if (strange) problems.push(`search for ${words} shows ${strange}`);
}

// Walks through the book in one way, in a few tabs: to open a tab costs more than to turn a page.
async function walk(way, visits) {
  const context = await browser.newContext(way);
  const turn = async () => {
    const page = await context.newPage();
    while (visits.length) await visits.shift()(page);
  };
  await Promise.all(Array.from({ length: TABS }, turn));
}

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
// The sources of the package are listed on pages of one make: every other one is enough in either way.
const worth = (name, index, way) => !name.startsWith("_modules") || way === ways[index % ways.length];
await Promise.all(ways.map((way) =>
  walk(way, pages.filter((name, index) => worth(name, index, way)).map((name) => (page) => visit(page, name, way)))));
const finder = await browser.newPage();
for (const [words, chapters] of Object.entries(SOUGHT)) await search(finder, words, chapters);
// What is typed stands beside the icon of the search field, and not under it.
const covered = await finder.evaluate(() => {
  const field = document.querySelector(".bd-search-container input"), icon = document.querySelector(".bd-search-container :is(svg, i)");
  const text = field.getBoundingClientRect().left + parseFloat(getComputedStyle(field).paddingLeft);
  return icon ? icon.getBoundingClientRect().right - text : 0;
});
if (covered > 0) problems.push(`search: the icon covers ${covered} px of what is typed`);
// A keyboard leads somewhere that is seen: each button above the article shows it.
await finder.goto(base + pages.find((name) => /chapters\/\d/.test(name)));
await finder.keyboard.press("Tab");
for (const button of await finder.locator(".bd-header-article button:visible").all()) {
  await button.focus();
  const seen = await button.evaluate((each) => getComputedStyle(each).outlineStyle !== "none");
  if (!seen) problems.push(`no focus is seen on ${await button.getAttribute("aria-label")}`);
}
await browser.close();
server.close();
console.log([...new Set(problems)].join("\n") ||
  `${pages.length} pages are well in light and dark, wide and on a phone, and ${players} players play`);
process.exit(problems.length ? 1 : 0);
