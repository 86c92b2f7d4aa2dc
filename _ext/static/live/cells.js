// Live cells: an editor and buttons in the place of each cell that is tagged so, what came of it in the place of its output.
(function () {
  "use strict";

  const { bundle, editor, make, progress, python } = kvpaged;

  // ---- What came of a cell.

  // A playground's controls work it, each click by a question to Python.
  function playground(cell, first, refused) {
    const element = make("div", { className: "live-playground" });
    async function work(request) {
      const focus = document.activeElement?.dataset.label;
      const answer = await python.ask({ ...request, cell });
      if (!answer?.playground) return refused(answer);
      draw(answer.playground);
      if (focus) element.querySelector(`[data-label="${focus}"]`)?.focus();
    }
    const field = ({ kind, label, value, choices }) => {
      const input = kind === "choice"
        ? make("select", {}, ...choices.map((choice) => make("option", { textContent: choice })))
        : make("input", { type: kind });
      Object.assign(input, { value, onchange: () => work({ do: "fill", label, value: kind === "number" ? Math.trunc(+input.value) : input.value }) });
      input.dataset.label = label;
      return make("label", {}, `${label} `, input);
    };
    const button = ({ label }) => {
      const each = make("button", { type: "button", textContent: label, onclick: () => work({ do: "press", label }) });
      each.dataset.label = label;
      return each;
    };
    const says = make("p"), row = make("div", { className: "live-bar" }), picture = make("div");
    says.role = "status";
    element.append(row, says, picture);
    const draw = (now) => {
      row.replaceChildren(...now.controls.map((control) => (control.kind === "button" ? button : field)(control)));
      says.textContent = now.sentence;
      picture.innerHTML = now.picture;
    };
    draw(first);
    return element;
  }

  // HTML as a notebook shows it: a player's script runs, which it does not when HTML is put into a page as text.
  function live(html) {
    const element = make("div", { innerHTML: html });
    for (const idle of element.querySelectorAll("script:not([type])")) idle.replaceWith(make("script", { textContent: idle.textContent }));
    return element;
  }

  function shown(cell, outcome, refused) {
    const parts = [];
    if (outcome.printed) parts.push(make("pre", { className: "live-text", textContent: outcome.printed }));
    if (outcome.html) parts.push(live(outcome.html));
    if (outcome.text) parts.push(make("pre", { className: "live-text", textContent: outcome.text }));
    if (outcome.error) parts.push(make("pre", { className: "live-text live-error", textContent: outcome.error }));
    if (outcome.playground) parts.push(playground(cell, outcome.playground, refused));
    return parts;
  }

  // ---- A cell.

  function enliven(cell, index) {
    const source = cell.querySelector(".cell_input pre").textContent.replace(/\n$/, "");
    const number = /\bcheck\(\s*["'](\w+\.\d+)["']/.exec(source)?.[1];
    const name = number ? `Exercise ${number}` : `Cell ${index + 1}`;
    const key = `kvpaged-cell ${number ?? location.pathname.split("/").pop() + " " + index}`;
    const store = { get: () => progress.read(key), set: (text) => progress.write(key, text === source ? null : text) };
    const id = `live-${index}`;

    const edit = editor(store.get() ?? source, name, `${id}-keys`);
    const button = (textContent, onclick, title) => make("button", { type: "button", textContent, onclick, title });
    const go = button(number ? "Check" : "Run", run, "Ctrl+Enter");
    const halt = button("Stop", () => python.stop(), "End Python at once");
    const reset = button("Reset", back, "The cell as it was");
    const bar = make("div", { className: "live-bar" }, go, halt, reset);
    if (number) bar.append(button("Hint", hint, "One more hint"));
    const says = make("span", { className: "live-says" });
    says.role = "status";
    bar.append(says);
    const keys = make("p", { id: `${id}-keys`, className: "live-keys", textContent: "Ctrl+Enter runs. Tab indents; Escape, then Tab, leaves the editor." });
    const hints = make("div", { className: "live-hints" });
    const out = make("div", { className: "live-out" });
    const input = cell.querySelector(".cell_input");
    input.hidden = true;
    input.after(make("div", { className: "live" }, edit.element, bar, keys, hints));

    // The stored output gives its place to the live one; the caption of a picture stays.
    const output = cell.querySelector(".cell_output") ?? cell.appendChild(make("div", { className: "cell_output docutils container" }));
    const caption = output.querySelector("figcaption");
    const stored = caption ? [...caption.parentElement.children].filter((each) => each !== caption) : [...output.children];
    caption ? caption.before(out) : output.append(out);
    const replace = (parts) => {
      out.replaceChildren(...parts);
      stored.forEach((each) => (each.hidden = parts !== none));
    };
    const none = [];

    const say = (words) => (says.textContent = words);
    const solved = () => cell.classList.toggle("live-solved", number !== undefined && progress.passed().has(number));
    const busy = (on) => {
      go.disabled = on;
      halt.disabled = !on;
    };
    busy(false);
    solved();
    if (number && progress.passed().has(number)) say("Answered here before.");

    // What needs Python, with a word about where it is. Resolves to the answer, or null.
    async function asking(request) {
      busy(true);
      say(python.started() ? "Running …" : `Python starts: the first time, ${bundle.megabytes} MB come from this site …`);
      try {
        const began = (await python.warm()) && performance.now();
        if (began) say("Running …");
        const answer = began && (await python.ask(request));
        if (!answer) say("Stopped. Python begins anew at the next run, and knows nothing of the cells above.");
        else say(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
        return answer || null;
      } catch (error) {
        say(error.message);
        return null;
      } finally {
        busy(false);
      }
    }

    async function run() {
      if (go.disabled) return;
      edit.mark(null);
      const answer = await asking({ do: "run", cell: `cell ${index + 1}`, source: edit.field.value });
      if (!answer) return;
      replace(shown(`cell ${index + 1}`, answer, () => say("Python was stopped: run the cell again.")));
      if (answer.error) {
        edit.mark(answer.line);
        say(answer.line ? `It fails in line ${answer.line}.` : "It fails.");
      } else if (answer.number) {
        if (answer.passed) progress.add(answer.number);
        solved();
        say(answer.passed ? "Right." : "Not yet.");
      }
    }

    async function hint() {
      if (go.disabled) return;
      const answer = await asking({ do: "run", cell: `hint ${number}`, source: `from kvpaged.exercises import hint\nhint("${number}")` });
      if (answer) hints.replaceChildren(...shown(id, answer));
      if (answer) say("");
    }

    function back() {
      edit.put(source);
      store.set(source);
      replace(none);
      hints.replaceChildren();
      say("");
    }

    edit.field.addEventListener("input", () => {
      store.set(edit.field.value);
      python.warm().catch(() => {}); // who types will run: Run says what went wrong
    });
    edit.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey)) {
        event.preventDefault();
        run();
      }
    });
  }

  document.querySelectorAll("div.cell.tag_live").forEach(enliven);
})();
