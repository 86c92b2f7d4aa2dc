// Which exercises were answered in this browser: the pages write it down, the index counts.
globalThis.kvpaged ??= {};
kvpaged.progress = (function () {
  "use strict";

  const KEY = "kvpaged-progress";
  // A browser may refuse to keep anything: then nothing is kept.
  const read = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const write = (key, text) => {
    try {
      if (text === null) localStorage.removeItem(key);
      else localStorage.setItem(key, text);
    } catch {}
  };
  const passed = () => {
    try {
      return new Set(JSON.parse(read(KEY) ?? "[]"));
    } catch {
      return new Set();
    }
  };
  const add = (number) => write(KEY, JSON.stringify([...passed().add(number)]));

  const place = document.querySelector("#progress[data-exercises]");
  if (place) {
    const all = JSON.parse(place.dataset.exercises);
    place.textContent = `${all.filter((number) => passed().has(number)).length} of ${all.length} exercises answered here, in this browser.`;
  }
  return { read, write, passed, add };
})();
