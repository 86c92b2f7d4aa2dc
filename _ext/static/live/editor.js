// An editor of Python: a field whose letters are not seen, over the same text in colours, beside the numbers of its lines.
(function () {
  "use strict";

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // The classes that the book's other code has.
  const KEYWORDS = /^(?:and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield)$/;
  const TOKEN = new RegExp([
    /(?<c1>#.*)/, /(?<s2>[fFrRbBuU]{0,2}(?:"""[^]*?(?:"""|(?![^]))|'''[^]*?(?:'''|(?![^]))|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))/,
    /(?<nd>^[ \t]*@[\w.]+)/, /(?<mi>\b\d[\w.]*)/, /(?<n>[^\W\d]\w*)/, /(?<o>[-+*/%=<>!&|^~@]+)/, /(?<p>[()[\]{},.:;])/,
  ].map((part) => part.source).join("|"), "gmu");

  function coloured(source) {
    const parts = document.createDocumentFragment();
    let at = 0, last = "";
    for (const found of source.matchAll(TOKEN)) {
      let [[kind, word]] = Object.entries(found.groups).filter(([, word]) => word !== undefined);
      if (kind === "n") kind = /^(?:None|True|False)$/.test(word) ? "kc" : KEYWORDS.test(word) ? "k" : last === "def" ? "nf" : last === "class" ? "nc" : "n";
      parts.append(source.slice(at, found.index), make("span", { className: kind, textContent: word }));
      [at, last] = [found.index + word.length, word];
    }
    parts.append(source.slice(at), "\n");
    return parts;
  }

  function editor(source, name, describedBy) {
    const field = make("textarea", { value: source, spellcheck: false, wrap: "off", autocapitalize: "off", autocomplete: "off" });
    field.setAttribute("aria-label", `${name}: Python code`);
    field.setAttribute("aria-describedby", describedBy);
    const seen = make("div", { className: "live-seen" }), numbers = make("div", { className: "live-lines" });
    seen.ariaHidden = numbers.ariaHidden = "true";
    const element = make("div", { className: "live-editor highlight" }, numbers, make("div", { className: "live-code" }, seen, field));
    let wrong = null;
    const draw = () => {
      seen.replaceChildren(coloured(field.value));
      numbers.replaceChildren(...field.value.split("\n").flatMap((_, index) =>
        [make("span", { textContent: index + 1, className: index + 1 === wrong ? "wrong" : "" }), "\n"]));
    };
    const insert = (text) => document.execCommand("insertText", false, text); // so that the browser can undo it
    const lineStart = () => field.value.slice(0, field.selectionStart).lastIndexOf("\n") + 1;
    const before = () => field.value.slice(lineStart(), field.selectionStart);

    // Moves the lines of the selection by a step to the right, or to the left.
    function move(left) {
      const start = lineStart(), lines = field.value.slice(start, field.selectionEnd);
      const moved = left ? lines.replace(/^ {1,4}/gm, "") : lines.replace(/^/gm, "    ");
      field.setSelectionRange(start, field.selectionEnd);
      insert(moved);
      field.setSelectionRange(lines.includes("\n") ? start : start + moved.length, start + moved.length);
    }

    let leaving = false; // Escape, then Tab: the keyboard gets out
    field.addEventListener("keydown", (event) => {
      const plain = !event.ctrlKey && !event.metaKey && !event.altKey, selected = field.selectionStart !== field.selectionEnd;
      const acts = {
        Tab: () => (event.shiftKey || selected ? move(event.shiftKey) : insert(" ".repeat(4 - before().length % 4))),
        Enter: () => insert("\n" + /^ */.exec(before())[0] + (before().endsWith(":") ? "    " : "")),
        Backspace: () => {
          field.setSelectionRange(field.selectionStart - 4, field.selectionStart);
          document.execCommand("delete");
        },
      };
      const mine = { Tab: !leaving, Enter: !event.shiftKey, Backspace: !selected && /^(?: {4})+$/.test(before()) };
      if (plain && mine[event.key]) {
        event.preventDefault();
        acts[event.key]();
      }
      if (event.key !== "Shift") leaving = event.key === "Escape";
    });
    field.addEventListener("input", () => {
      wrong = null;
      draw();
    });
    draw();
    return {
      element, field,
      put(text) {
        field.value = text;
        wrong = null;
        draw();
      },
      mark(line) {
        wrong = line;
        draw();
      },
    };
  }

  Object.assign(kvpaged, { editor, make });
})();
