// Packs Python for the pages: node pack.mjs PYODIDE SOURCES.zip TARGET.js
//
// TARGET.js is one script, so that a page opened as a file has it too: the files that a worker needs, each compressed.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

const [folder, sources, target] = process.argv.slice(2).map((path) => resolve(path));
const { loadPyodide, version } = await import(pathToFileURL(join(folder, "pyodide.mjs")));
const { info } = JSON.parse(readFileSync(join(folder, "pyodide-lock.json")));
const lock = { info, packages: {} }; // Pyodide would fetch packages from a server of its own: there are none
const python = await loadPyodide({ indexURL: folder, lockFileContents: lock, packageBaseUrl: folder });
python.FS.writeFile("/sources.zip", readFileSync(sources));
python.runPython(readFileSync(new URL("library.py", import.meta.url), "utf8"));

const files = {
  "worker.js": readFileSync(new URL("../static/live/worker.js", import.meta.url)),
  "pyodide-lock.json": Buffer.from(JSON.stringify(lock)),
  "library.zip": python.FS.readFile("/library.zip"),
};
for (const name of ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"]) files[name] = readFileSync(join(folder, name));
const packed = Object.entries(files).map(([name, bytes]) => [name, gzipSync(bytes, { level: 9 }).toString("base64")]);
const from = `Pyodide ${version} (MPL-2.0, github.com/pyodide/pyodide), CPython's library (PSF-2.0), and the package of this book`;
writeFileSync(target, `// ${from}.\nglobalThis.kvpagedPython = ${JSON.stringify(Object.fromEntries(packed))};\n`);
process.exit(0);
