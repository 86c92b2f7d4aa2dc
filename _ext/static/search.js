// Searches the book in the reader's browser: ranks sections with MiniSearch, and shows them page by page.
// PAGES, STOPWORDS and the Stemmer (both Sphinx's own) stand in `searchindex.js`, which `_ext/search_index.py` writes.
(function () {
  "use strict";

  const stemmer = new Stemmer(), stopwords = new Set(STOPWORDS);

  // copy-on-write, copy_on_write and CopyOnWrite are the same words, and one word as well.
  const WORD = /[\p{L}\p{N}]+(?:[_.\-‑][\p{L}\p{N}]+)*/gu;
  const tokenize = (text) => [...text.matchAll(WORD)].flatMap(([word]) => {
    const parts = word.split(/[_.\-‑]|(?<=\p{Ll})(?=\p{Lu})/u);
    return parts.length > 1 ? [...parts, parts.join("")] : parts;
  });
  const processTerm = (term) => {
    const word = term.toLowerCase();
    return stopwords.has(word) ? null : stemmer.stemWord(word);
  };

  const index = new MiniSearch({ fields: ["title", "about", "text", "code"], tokenize, processTerm });
  const entries = PAGES.flatMap(([address, page, about, found], number) => found.map(([anchor, title, text, code], place) =>
    place ? { number, address, page, anchor, title, text, code } : { number, address, page, about, anchor, title: page, text, code }));
  index.addAll(entries.map((entry, id) => ({ id, ...entry })));

  // The words as they are; else, the parts of words; else, words that begin so, or are spelled like them; else, any of them.
  function ranked(query) {
    const boost = { title: 5, about: 3, text: 1, code: 0.3 }, combineWith = "AND";
    const whole = (text) => [...text.matchAll(WORD)].map(([word]) => word.replace(/[_.\-‑]/g, ""));
    const ways = [{ combineWith, tokenize: whole }, { combineWith }, { combineWith, prefix: true }, { combineWith, fuzzy: 0.2 }, {}];
    for (const way of ways) {
      const found = index.search(query, { boost, ...way });
      if (found.length) return found;
    }
    return [];
  }

  const flat = (text) => text.toLowerCase().replace(/[\s_\-‑]+/g, " ").trim();

  // Pages, best first, each with its sections. Words that stand together as they were typed count twice. A page is as good
  // as its sections together: the one that comes back to a thing is about it. Chapters explain, other pages list: only a
  // term of the glossary itself comes before them. Where two chapters tell as much of a thing, the earlier one introduces it.
  function search(query) {
    const pages = new Map(), phrase = flat(query);
    for (const { id, score, terms } of ranked(query)) {
      const entry = entries[id];
      const page = pages.get(entry.number) ?? { address: entry.address, title: entry.page, score: 0, sections: [] };
      const chapter = /^\d+/.exec(entry.page);
      const together = phrase.includes(" ") && flat(`${entry.title} ${entry.text}`).includes(phrase) ? 2 : 1;
      page.score += score * together * (chapter ? 1 - chapter[0] / 40 : 0.1);
      page.sections.push({ ...entry, terms: new Set(terms) });
      pages.set(entry.number, page);
    }
    const terms = (text) => [...new Set(tokenize(text).map(processTerm))].sort().join();
    const explains = (page) => page.address.endsWith("glossary.html") && terms(page.sections[0].title) === terms(query);
    return [...pages.values()].sort((a, b) => explains(b) - explains(a) || b.score - a.score);
  }

  const escaped = (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

  // The words around the place where most of what was sought stands together, with those sought marked.
  function snippet({ about = "", text, code, terms }, length = 220) {
    text = [about, text].filter(Boolean).join(". ");
    const places = (where) => [...where.matchAll(WORD)].filter(([word]) => tokenize(word).some((part) => terms.has(processTerm(part))));
    let from = text, hits = places(text);
    if (!hits.length) [from, hits] = [code, places(code)];
    if (!hits.length) return escaped(text.slice(0, length)) + (text.length > length ? " …" : "");
    const near = (hit) => new Set(hits.filter((each) => each.index >= hit.index && each.index < hit.index + length - 60).map(([word]) => word.toLowerCase())).size;
    const best = hits.reduce((a, b) => (near(b) > near(a) ? b : a));
    let start = Math.max(0, best.index - 60), stop = Math.min(from.length, start + length);
    if (start) start = from.indexOf(" ", start) + 1;
    if (stop < from.length) stop = from.lastIndexOf(" ", stop);
    let shown = "", at = start;
    for (const hit of hits.filter((each) => each.index >= start && each.index + each[0].length <= stop)) {
      shown += escaped(from.slice(at, hit.index)) + `<mark>${escaped(hit[0])}</mark>`;
      at = hit.index + hit[0].length;
    }
    return (start ? "… " : "") + shown + escaped(from.slice(at, stop)) + (stop < from.length ? " …" : "");
  }

  function show(query, results) {
    const list = document.querySelector("#found"), status = document.querySelector("#search-status");
    list.replaceChildren();
    const pages = query.trim() ? search(query) : [];
    status.textContent = !query.trim() ? "" : !pages.length ? `Nothing in this book has these words: ${query}`
      : `${pages.length === 1 ? "One page" : pages.length + " pages"}, the best first`;
    for (const { address, title, sections } of pages) {
      const item = document.createElement("li");
      const rows = sections.slice(0, 4).map((section) =>
        `<li><a href="${address}#${encodeURIComponent(section.anchor)}">${escaped(section.title)}</a><p>${snippet(section)}</p></li>`);
      item.innerHTML = `<h2><a href="${address}">${escaped(title)}</a></h2><ul>${rows.join("")}</ul>`;
      list.append(item);
    }
  }

  const field = document.querySelector(".bd-search-container input");
  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.addEventListener("input", () => {
    history.replaceState(null, "", "?q=" + encodeURIComponent(field.value));
    show(field.value);
  });
  show(field.value);
  field.focus();
})();
