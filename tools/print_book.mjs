// Prints the built book, all pages in one, with headless Chromium: node tools/print_book.mjs [_build/html] [book.pdf]
//
// The pages are put one behind another in the order of the table of contents, their links made to lead within the one
// document, and printed with the style for paper that each page has (`_static/book.css`, `_ext/static/print.js`).
import { readFileSync, existsSync } from "node:fs";
import { dirname, join, normalize, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const site = resolve(process.argv[2] ?? "_build/html");
const target = resolve(process.argv[3] ?? "_build/paged-kv-caching.pdf");
const executablePath = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);
if (!executablePath) throw new Error("no Chromium found: install Debian's chromium");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"] });
const page = await (await browser.newContext({ colorScheme: "light", viewport: { width: 800, height: 1100 } })).newPage();
page.on("pageerror", (error) => { throw error; });
const root = "chapters/index.html";
await page.goto(pathToFileURL(join(site, root)).href);

const toc = await page.locator(".bd-sidebar-primary nav.bd-links a").evaluateAll((links) => links.map((link) => link.getAttribute("href").split("#")[0]));
const chapters = [...new Set([root, ...toc.filter(Boolean).map((href) => normalize(join(dirname(root), href)))])].filter((name) => existsSync(join(site, name)));
const script = (name) => readFileSync(join(site, "_static", name), "utf8");

await page.evaluate((pages) => {
  const name = (path) => path.replace(/^.*\/|\.html$/g, "");
  const within = new Set(pages.map(([path]) => name(path)));
  const book = document.createElement("main");
  for (const [path, html] of pages) {
    const article = new DOMParser().parseFromString(html, "text/html").querySelector("article.bd-article");
    for (const each of article.querySelectorAll("[id]")) each.id = `${name(path)}--${each.id}`;
    for (const link of article.querySelectorAll("a[href]")) {
      const [to, place] = link.getAttribute("href").split("#");
      if (/^[a-z]+:/.test(to)) continue;
      if (to && !within.has(name(to))) link.removeAttribute("href"); // the listings of the sources are not printed
      else link.setAttribute("href", "#" + (to ? name(to) : name(path)) + (place ? "--" + place : ""));
    }
    article.id = name(path);
    book.append(document.adoptNode(article));
  }
  document.body.replaceChildren(book);
  document.body.classList.add("one-document");
}, chapters.map((path) => [path, readFileSync(join(site, path), "utf8")]));

for (const style of ["picture.css", "trace_player.css"]) await page.addStyleTag({ content: script(style) });
await page.addScriptTag({ content: script("trace_player.js") });
// A page has MathJax, with its settings, if it has a formula: the first has none.
const settings = chapters.map((name) => readFileSync(join(site, name), "utf8").match(/window\.MathJax = .*?(?=<\/script>)/)?.[0]).find(Boolean);
await page.addScriptTag({ content: settings });
await page.addScriptTag({ url: pathToFileURL(join(site, "_static/mathjax/startup.js")).href });
await page.evaluate(() => MathJax.startup.promise.then(() => MathJax.typesetPromise()));
await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
await page.pdf({
  path: target, format: "A4", outline: true, tagged: true, printBackground: true, displayHeaderFooter: true,
  margin: { top: "18mm", bottom: "18mm", left: "18mm", right: "18mm" }, headerTemplate: "<span></span>",
  footerTemplate: '<div style="width:100%;text-align:center;font:9px system-ui"><span class="pageNumber"></span></div>',
});
await browser.close();
console.log(`${chapters.length} pages of the book are in ${relative(".", target)}`);
