// The worker in which a page runs Python. It has no network: what it needs is handed to it, as blobs, with the first message.
const { files, snapshot } = await new Promise((resolve) => {
  onmessage = ({ data }) => resolve(data);
});
const nowhere = "python://page/";
self.fetch = async (address) => new Response(files[String(address).replace(nowhere, "")], { headers: { "content-type": "application/wasm" } });
const open = (name) => import(URL.createObjectURL(files[name].slice(0, files[name].size, "text/javascript")));

const { loadPyodide } = await open("pyodide.mjs");
const python = await loadPyodide({
  indexURL: nowhere,
  packageBaseUrl: nowhere,
  stdLibURL: `${nowhere}library.zip`,
  lockFileContents: JSON.parse(await files["pyodide-lock.json"].text()),
  createPyodideModule: (await open("pyodide.asm.mjs")).default,
  // Private to Pyodide, and worth it: memory as it was after all imports is read faster than all is imported again.
  ...(snapshot ? { _loadSnapshot: snapshot.arrayBuffer() } : { _makeSnapshot: true }),
});
if (!snapshot) {
  python.runPython("import runner, kvpaged.exercises, kvpaged.figures.playground, kvpaged.mini");
  postMessage({ snapshot: new Blob([python.makeMemorySnapshot()]) });
}
const runner = python.pyimport("runner");
if (snapshot) runner.awake();
onmessage = ({ data }) => postMessage({ answer: runner.answer(data), memory: python._module.HEAP8.length });
postMessage({ ready: true });
