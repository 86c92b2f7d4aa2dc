// Python for a page: started when it is first needed, from one script of this site; asked in order; stopped at once.
//
// Its files are kept in the browser, and so is Python's memory as it was when all was imported: the next visit begins there,
// and fetches nothing. The worker has the address `data:`, so that it runs in a page opened as a file too.
kvpaged.python = (function () {
  "use strict";

  const bundle = kvpaged.bundle.name;
  const address = document.currentScript.src.replace(/[^/]*$/, "") + bundle;
  const MOST_MEMORY = 200e6; // bytes: a worker's memory grows, and never shrinks
  let files = null, snapshot = null; // blobs, which a worker is handed without a copy
  let running = null; // the worker that runs now, if one does
  let started = false; // whether one ever did on this page

  const blobOf = async (base64) => {
    const packed = await fetch(`data:application/gzip;base64,${base64}`);
    return new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).blob();
  };

  function load(address) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.onload = resolve;
      script.onerror = () => reject(new Error("Python could not be fetched. Is there a network?"));
      script.src = address;
      document.head.append(script);
    });
  }

  // What the browser keeps for the book, one version of it: Python's files and its memory, as blobs under the script's name.
  const finished = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  async function kept(mode, work) {
    const opening = indexedDB.open("kvpaged", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("python");
    const database = await finished(opening);
    try {
      return await finished(work(database.transaction("python", mode).objectStore("python")));
    } finally {
      database.close();
    }
  }
  const read = () => kept("readonly", (store) => store.get(bundle));
  const forget = () => kept("readwrite", (store) => store.clear());
  const keep = async (blobs) => {
    await forget(); // of another version of the book
    await kept("readwrite", (store) => store.put(blobs, bundle));
  };

  async function gather() {
    ({ files = null, snapshot = null } = (await read().catch(() => null)) ?? {});
    if (files) return;
    await load(address);
    const unpacked = Object.entries(globalThis.kvpagedPython).map(async ([name, base64]) => [name, await blobOf(base64)]);
    files = Object.fromEntries(await Promise.all(unpacked));
    delete globalThis.kvpagedPython;
  }

  // One worker, from its first message to its end. `ready` is true when it is, and false when it was stopped before.
  function start() {
    const here = { waiting: [] };
    const stopped = new Promise((resolve) => (here.stopped = () => resolve(false)));
    here.stop = () => {
      here.worker?.terminate();
      here.stopped();
      here.waiting.splice(0).forEach((forget) => forget(null));
      if (running === here) running = null;
    };
    const launch = () => new Promise((resolve, reject) => {
      let ready = false;
      const fail = (error) => {
        if (!ready) return reject(new Error(`Python does not start: ${error}`));
        here.waiting.splice(0).forEach((tell) => tell({ error: `Python broke down: ${error}`, printed: "" }));
        here.stop();
      };
      here.worker.onerror = (event) => fail(event.message ?? "no worker in this browser");
      here.worker.onmessage = ({ data }) => {
        if (data.snapshot) {
          snapshot = data.snapshot;
          keep({ files, snapshot }).catch(() => {}); // no room, or no such place: the next visit fetches again
        } else if (data.ready) {
          started = ready = true;
          resolve(true);
        } else {
          here.waiting.shift()(JSON.parse(data.answer));
          if (data.memory > MOST_MEMORY && !here.waiting.length) here.stop();
        }
      };
      here.worker.postMessage({ files, snapshot });
    });
    const begin = async () => {
      if (!files) await gather();
      here.worker = new Worker("data:text/javascript," + encodeURIComponent(await files["worker.js"].text()), { type: "module" });
      return launch();
    };
    here.ready = Promise.race([stopped, begin()]);
    here.ready.catch(() => {
      here.stop();
      files = snapshot = null;
      forget().catch(() => {}); // what does not start is not kept
    });
    return here;
  }

  // Start, if that has not happened: a reader who types will soon run.
  const warm = () => (running ??= start()).ready;

  // Ask the runner something. Resolves to its answer, or to null when Python was stopped before.
  async function ask(request) {
    const here = (running ??= start());
    if (!(await here.ready)) return null;
    return new Promise((resolve) => {
      here.waiting.push(resolve);
      here.worker.postMessage(JSON.stringify(request));
    });
  }

  // End Python at once, whatever it does. The next question starts it anew, with nothing in it.
  const stop = () => running?.stop();

  return { warm, ask, stop, started: () => started };
})();
