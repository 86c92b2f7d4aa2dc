// The trace player: plays an event log again, step by step. No assets, no network, no kernel.
(function () {
  "use strict";

  // ---- The state: what kvpaged.replay.Replay rebuilds in Python. An event is [kind, sequence, pages, tokens, number].

  function fresh() {
    return { refs: {}, cached: {}, moving: {}, tables: {}, tokens: {}, computed: {}, hits: {}, ended: [] };
  }

  function apply(state, [kind, sequence, pages, tokens, number], size) {
    const { refs, cached, moving, tables } = state;
    const take = () => pages.forEach((page) => page !== state.nothing && (refs[page] = (refs[page] || 0) + 1));
    const giveBack = (some) => some.forEach((page) => --refs[page] || delete refs[page]);
    if (kind === "insert") {
      take();
      pages.forEach((page, index) => (cached[page] = Math.min(size, number - index * size)));
    } else if (kind === "evict") {
      giveBack(pages);
      pages.forEach((page) => delete cached[page]);
    } else if (kind === "transfer") {
      if (number) take();
      else giveBack(pages);
      pages.forEach((page) => (moving[page] = (moving[page] || 0) + (number ? 1 : -1)) || delete moving[page]);
    } else if (kind === "set aside") {
      take();
      state.nothing = pages[0];
    } else if (kind === "salvage") {
      for (const some of [refs, cached, moving, tables, state.computed]) Object.keys(some).forEach((key) => delete some[key]);
    } else if (kind === "begin") {
      tables[sequence] = [];
      state.tokens[sequence] = tokens.slice();
      state.computed[sequence] = state.hits[sequence] = number;
    } else if (kind === "share" || kind === "allocate") {
      take();
      tables[sequence].push(...pages);
    } else if (kind === "copy") {
      const table = tables[sequence];
      table.splice(table.indexOf(pages[1]), 1);
      table[table.indexOf(pages[0])] = pages[1];
      giveBack([pages[0]]);
    } else if (kind === "append") {
      state.tokens[sequence].push(...tokens);
    } else if (kind === "compute") {
      state.computed[sequence] = number;
    } else if (kind === "fork") {
      take();
      tables[number] = pages.slice();
      state.tokens[number] = state.tokens[sequence].slice();
      state.computed[number] = state.computed[sequence];
      state.hits[number] = state.hits[sequence];
    } else if (kind === "truncate") {
      giveBack(pages);
      tables[sequence].length -= pages.length;
      state.tokens[sequence].length = number;
      state.computed[sequence] = Math.min(state.computed[sequence], number);
    } else if (kind === "give back") {
      giveBack(pages);
      pages.forEach((page) => (tables[sequence][tables[sequence].indexOf(page)] = state.nothing));
    } else if (kind === "release") {
      giveBack(pages);
      delete tables[sequence];
      state.ended.push(sequence);
    }
    return state;
  }

  // ---- The sentence: what an event did and why, told from the state before it.

  function quoted(words, tokens) {
    const shown = tokens.map((token) => words[token]);
    if (shown.length > 14) shown.splice(7, shown.length - 14, "…");
    return "“" + shown.join(" ") + "”";
  }

  function teller(trace) {
    const { events, words, owners, size } = trace;
    const name = (sequence) => (owners[sequence] || ["?"])[0];
    const request = (number) => trace.requests[number] || number;
    const listed = (all) => (all.length < 2 ? all.join("") : all.slice(0, -1).join(", ") + " and " + all[all.length - 1]);
    const plural = (count, noun) => count + " " + noun + (count === 1 ? "" : "s");
    const named = (pages) => {
      const runs = [];
      for (const page of pages) {
        const run = runs[runs.length - 1];
        if (run && page === run[1] + 1) run[1] = page;
        else runs.push([page, page]);
      }
      const parts = runs.flatMap(([from, to]) => (to - from > 1 ? [from + "–" + to] : to > from ? [from, to] : [from]));
      if (parts.length > 8) return pages.length + " pages";
      return (pages.length === 1 ? "page " : "pages ") + listed(parts);
    };
    const holders = (state, page, but, ending = 0) =>
      Object.keys(state.tables)
        .filter((sequence) => +sequence !== but && state.tables[sequence].includes(page))
        .map(name)
        .concat(page in state.cached ? ["the prefix cache"] : [], (state.moving[page] || 0) > ending ? ["a transfer"] : []);
    const freed = (state, pages) => pages.filter((page) => state.refs[page] === 1);
    const fate = (state, pages, but, ending) => {
      const free = freed(state, pages);
      const kept = pages.filter((page) => !free.includes(page));
      const parts = [];
      if (free.length) parts.push(named(free) + (free.length === 1 ? " is" : " are") + " free again");
      if (kept.length) {
        const others = [...new Set(kept.flatMap((page) => holders(state, page, but, ending)))];
        parts.push(named(kept) + (kept.length === 1 ? " stays" : " stay") + " with " + listed(others));
      }
      return parts.join("; ");
    };

    const tell = {
      begin: (_, [, who, , tokens, number]) =>
        `${name(who)} begins with a prompt of ${plural(tokens.length, "token")}: ${quoted(words, tokens)}. ` +
        (number ? `The first ${number} are in the prefix cache; ${tokens.length - number} must be computed.`
          : trace.kinds.includes("insert") ? "Nothing of it is in the prefix cache: all must be computed."
          : "All of them must be computed."),
      share: (state, [, who, pages]) => {
        const partly = state.hits[who] % size;
        return `${name(who)} becomes one more owner of ${named(pages.filter((page) => page !== state.nothing))}, found in the prefix cache by its tokens: ` +
          `${plural(state.hits[who], "token")} that need no computing` +
          (partly ? `. Of page ${pages[pages.length - 1]} only ${plural(partly, "slot")} match.` : ".");
      },
      allocate: (state, [, who, pages], next) => {
        const waiting = Math.min(pages.length * size, state.tokens[who].length - state.tables[who].length * size);
        const why = next && next[0] === "copy" && next[1] === who ? `must write to page ${next[2][0]}, which has other owners: it`
          : waiting > 0 ? `needs room for ${plural(waiting, "token")} of its prompt: it`
          : "has filled its pages and needs room for one more token: it";
        return `${name(who)} ${why} becomes the first owner of ${named(pages)}, free until now.`;
      },
      copy: (state, [, who, pages, , number]) =>
        `${name(who)} writes to page ${pages[0]}, which ${listed(holders(state, pages[0], who))} also ` +
        `${holders(state, pages[0], who).length > 1 ? "own" : "owns"}, so ${name(who)} gets a copy: ` +
        `${plural(number, "slot")} ${number === 1 ? "goes" : "go"} to page ${pages[1]}, and page ${pages[0]} stays as it is.`,
      append: (state, [, who, , tokens]) => {
        const at = state.tokens[who].length;
        return `${name(who)} has one more token, ${quoted(words, tokens)}, in page ${state.tables[who][Math.floor(at / size)]}, slot ${at % size}. ` +
          "Its K and V are not computed yet.";
      },
      compute: (state, [, who, , , number]) => {
        const from = state.computed[who];
        const pages = state.tables[who].slice(Math.floor(from / size), Math.ceil(number / size));
        return `K and V of ${plural(number - from, "token")} of ${name(who)} are computed and stored in ${named(pages)}.`;
      },
      fork: (_, [, who, pages, , number]) =>
        `${name(who)} is forked: ${name(number)} becomes one more owner of ${named(pages)}. Nothing is copied until one of them writes.`,
      truncate: (state, [, who, pages, , number]) =>
        `${name(who)} forgets its last ${plural(state.tokens[who].length - number, "token")}` +
        (pages.length ? `: ${fate(state, pages, who)}.` : "; the page they were in holds others still."),
      "set aside": (_, [, , pages]) => `Page ${pages[0]} is set aside as the null page: it stands in a table where there is no page.`,
      "give back": (state, [, who, pages]) =>
        `No token to come of ${name(who)} reads ${named(pages)}. ${name(who)} lives on and gives back what it does not need: ${fate(state, pages, who)}.`,
      release: (state, [, who, pages]) => `${name(who)} is released and gives its pages back: ${fate(state, pages, who) || "it had none"}.`,
      insert: (_, [, , pages, , number]) =>
        `The prefix cache becomes one more owner of ${named(pages)}: ${plural(number, "token")} that can be found again.`,
      evict: (state, [, , pages], next, before, index) => {
        const request = events.slice(index + 1, index + 4).find((event) => event[0] === "allocate");
        const short = request && trace.total - Object.keys(state.refs).length < request[2].length;
        const why = short ? "Pages are short. The prefix cache gives back what was not used for the longest time"
          : before && before[0] === "insert" ? "Another page now holds the same tokens and more. The prefix cache gives back"
          : "The prefix cache is told to give back";
        const all = freed(state, pages).length === pages.length;
        const outcome = !all ? fate(state, pages) : pages.length === 1 ? "it is free again" : "they are free again";
        return `${why}${short ? ", " : " "}${named(pages.slice().sort((a, b) => a - b))}: ${outcome}.`;
      },
      transfer: (state, [, , pages, , number]) =>
        !number ? `A transfer is over and gives back ${named(pages)}: ${fate(state, pages, undefined, 1)}.`
          : pages[0] in state.refs ? `A transfer becomes one more owner of ${named(pages)}: nobody can free ${pages.length === 1 ? "it" : "them"} while bytes move.`
          : `A transfer becomes the first owner of ${named(pages)}, free until now: bytes will come into ${pages.length === 1 ? "it" : "them"}.`,
      queue: (_, [, , , tokens, number]) => `Request ${request(number)} arrives and waits: ${quoted(words, tokens)}.`,
      admit: (_, [, who, , , number]) => `Request ${request(number)} is admitted: ${name(who)} is part of the batch from now on.`,
      preempt: (_, [, who, , , number]) =>
        `Pages are short: ${name(who)} is preempted. Request ${request(number)} waits again; only what the prefix cache keeps of it need not be computed twice.`,
      finish: (_, [, , , , number]) => `Request ${request(number)} is finished.`,
      step: (_, [, , , , number]) => `A forward pass is over: ${plural(number, "token")} computed.`,
    };
    return (state, index) => {
      const event = events[index];
      const known = tell[event[0]];
      return known ? known(state, event, events[index + 1], events[index - 1], index)
        : `${event[1] === null ? "" : name(event[1]) + ": "}${event[0]} ${event[4] || ""}`.trim() + ".";
    };
  }

  // ---- The pictures: a page has the shape that kvpaged/figures/page_shape.py gives it.

  const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const INK = "#111", NEUTRAL = "#8a8f96", SLOT = 15, ROW = 13, HEAD = 18, PAD = 4;

  function usesOf(state, size) {
    const uses = {};
    for (const sequence in state.tables) {
      const length = state.tokens[sequence].length, computed = state.computed[sequence];
      state.tables[sequence].forEach((page, index) => {
        if (page === state.nothing) return;
        const use = [sequence, Math.min(size, length - index * size), Math.min(size, computed - index * size)];
        (uses[page] = uses[page] || []).push(use);
      });
    }
    return uses;
  }

  function pagePicture(page, uses, cached, moving, owned, owners, size) {
    const columns = Math.min(4, size), width = columns * SLOT + 2 * PAD, height = HEAD + Math.ceil(size / columns) * ROW + PAD;
    const text = (x, y, content, kind) => `<text x="${x}" y="${y}" class="${kind}">${escaped(content)}</text>`;
    let drawn = `<rect x="1" y="1" width="${width}" height="${height}" rx="4" class="${owned ? "p" : "f"}"/>` +
      text(6, 11, page, owned ? "b s" : "d s");
    if (owned) {
      let right = width - 3;
      if (cached) {
        drawn += `<path d="M${right - 7} 5h7v11l-3.5 -3l-3.5 3z" class="i"/>`;
        right -= 10;
      }
      if (moving) {
        drawn += `<path d="M${right - 9} 8h6v-3l4 4.5h-10M${right} 14h-6v3l-4 -4.5h10" class="i"/>`;
        right -= 13;
      }
      let chips = uses.map(([sequence]) => owners[sequence]);
      const space = (all) => all.reduce((sum, [name]) => sum + name.length * 6.5 + 5, 0);
      if (chips.length > 1 && right - space(chips) < 9 + String(page).length * 6) chips = [["×" + chips.length, NEUTRAL]];
      for (const [name, colour] of chips.reverse()) {
        const wide = name.length * 6.5 + 4;
        right -= wide;
        drawn += `<rect x="${right}" y="4.5" width="${wide}" height="12" rx="3" fill="${colour}"/>` + text(right + wide / 2, 11, name, "m s o b");
        right -= 1;
      }
      for (let slot = 0; slot < size; slot++) {
        const x = 1.5 + PAD + (slot % columns) * SLOT, y = 1.5 + HEAD + Math.floor(slot / columns) * ROW;
        const here = uses.filter(([, tokens]) => slot < tokens);
        const band = (SLOT - 1) / here.length;
        here.forEach(([sequence, , computed], number) => {
          const colour = owners[sequence][1], kind = slot < computed ? "" : ` class="r" stroke="${colour}"`;
          drawn += `<rect x="${x + number * band}" y="${y}" width="${band}" height="${ROW - 1}" fill="${colour}"${kind}/>`;
        });
        if (!here.length && slot < cached) drawn += `<path class="h" d="M${x} ${y + 4}l4 -4m-4 8l8 -8m-8 12l12 -12m-8 12l10 -10m-6 10l6 -6"/>`;
        if (!here.length) drawn += `<path class="c" d="M${x} ${y}h${SLOT - 1}v${ROW - 1}h${1 - SLOT}z"/>`;
      }
    }
    return `<svg viewBox="0 0 ${width + 2} ${height + 2}" width="${width + 2}" height="${height + 2}" aria-hidden="true">${drawn}</svg>`;
  }

  function rowPicture(trace, state, sequence, touched, fresh) {
    const { words, owners, size } = trace;
    const table = state.tables[sequence], tokens = state.tokens[sequence], computed = state.computed[sequence];
    const shown = table.map((page, index) => {
      if (table.length > 40 && index >= 8 && index < table.length - 24) return index === 8 ? `<span>… ${table.length - 32} pages …</span>` : "";
      if (page === state.nothing) return '<span class="page"><b>·</b></span>';
      const text = tokens.slice(index * size, (index + 1) * size).map((token, slot) => {
        const at = index * size + slot, word = escaped(words[token]);
        return at >= computed ? `<i${at >= fresh ? ' class="new"' : ""}>${word}</i>` : word;
      });
      return `<span class="page${touched.has(page) ? " now" : ""}"><b>${page}</b> ${text.join(" ")}</span>`;
    });
    return `<li>${who(owners[sequence])} ${shown.join(" ")}</li>`;
  }

  const who = ([name, colour]) => `<b class="who" style="background:${colour};color:${INK}">${escaped(name)}</b>`;

  // ---- What a trace shows at a position: its tiles, its rows, its sentence.

  function traceScene(root, trace) {
    const { events, size, owners } = trace;
    const tellEvent = teller(trace);
    const pool = root.querySelector(".pool"), rows = root.querySelector("ol"), note = root.querySelector(".note");
    let state = fresh(), at = 0, written = [];
    const tiles = {}, drawn = {}, saved = [];
    const forward = () => {
      if (at % 100 === 0) saved[at / 100] = structuredClone(state); // going back starts here, not at the beginning
      apply(state, events[at++], size);
    };
    pool.innerHTML = trace.pages.map(() => "<div></div>").join("");
    trace.pages.forEach((page, index) => (tiles[page] = pool.children[index]));

    return function show(position) {
      if (position < at) {
        const near = Math.floor(Math.max(0, position - 1) / 100);
        [state, at] = [structuredClone(saved[near]), near * 100];
      }
      while (at < position - 1) forward();
      let sentence = "Nothing has happened yet: all pages are free.", touched = new Set(), grown = [-1, 0];
      if (position) {
        const event = events[position - 1];
        sentence = at < position ? tellEvent(state, at) : root.dataset.sentence;
        touched = new Set(event[2]);
        if (event[0] === "append") grown = [event[1], Infinity];
        if (at < position) forward();
        if (event[0] === "append") {
          grown[1] = state.tokens[event[1]].length - 1;
          touched.add(state.tables[event[1]][Math.floor(grown[1] / size)]);
        }
      }
      const uses = usesOf(state, size);
      for (const page of trace.pages) {
        const picture = pagePicture(page, uses[page] || [], state.cached[page] || 0, page in state.moving, page in state.refs, owners, size);
        if (drawn[page] !== picture) tiles[page].innerHTML = drawn[page] = picture;
        tiles[page].className = touched.has(page) ? "now" : "";
      }
      const live = Object.keys(state.tables);
      const gone = new Map(state.ended.map((each) => [owners[each][0], each]));
      live.forEach((each) => gone.delete(owners[each][0])); // it was preempted, and is back
      const ended = [...gone.values()].slice(-4).map((each) =>
        `<li class="ended">${who(owners[each])} is released: ${escaped(quoted(trace.words, state.tokens[each]))}</li>`);
      const texts = live.map((each) => rowPicture(trace, state, each, touched, +each === grown[0] ? grown[1] : Infinity)).concat(ended);
      texts.forEach((text, index) => {
        if (index >= written.length) rows.insertAdjacentHTML("beforeend", text);
        else if (text !== written[index]) rows.children[index].outerHTML = text;
      });
      while (rows.children.length > texts.length) rows.lastChild.remove();
      written = texts;
      const used = Object.keys(state.refs).length;
      const idle = Object.keys(state.cached).filter((page) => state.refs[page] === 1).length;
      note.textContent = `${used} of ${trace.total} pages used` + (idle ? `, ${idle} by the prefix cache alone` : "") +
        `, ${trace.total - used} free.` + (trace.total > trace.pages.length ? ` ${trace.total - trace.pages.length} pages that nobody ever uses here are not drawn.` : "");
      const lengths = Object.fromEntries(live.map((each) => [each, state.tokens[each].length]));
      const computed = Object.fromEntries(live.map((each) => [each, state.computed[each]]));
      pool.setAttribute("aria-label", note.textContent);
      root.dataset.state = JSON.stringify({ ref_counts: state.refs, cached: state.cached, tables: state.tables, lengths, num_computed: computed });
      return sentence;
    };
  }

  // ---- What a comparison shows: the same requests in one strip of memory and in pages, moment by moment.

  function comparisonScene(root, { frames, owners, size, slots, total }) {
    const strip = root.querySelector(".strip"), pool = root.querySelector(".pool"), notes = root.querySelectorAll(".note");
    const piece = (length, kind, content, colour) =>
      `<div class="${kind}" style="width:${(100 * length) / slots}%${colour ? ";--owner:" + colour : ""}">${content}</div>`;
    return function show(position) {
      const [sentence, regions, tables, ...states] = frames[position];
      let drawn = "", at = 0;
      for (const [start, length, used, who] of regions.concat([[slots, 0]])) {
        if (start > at) drawn += piece(start - at, "gap", start - at);
        if (length) drawn += piece(length, "run", `<div style="width:${(100 * used) / length}%"><b>${escaped(owners[who][0])}</b></div>`, owners[who][1]);
        at = start + length;
      }
      strip.innerHTML = drawn;
      const uses = {};
      for (const [who, table, length] of tables) {
        table.forEach((page, index) => (uses[page] = [[who, Math.min(size, length - index * size), Math.min(size, length - index * size)]]));
      }
      pool.innerHTML = Array.from({ length: total }, (_, page) =>
        `<div>${pagePicture(page, uses[page] || [], 0, false, page in uses, owners, size)}</div>`).join("");
      states.forEach((state, side) => {
        notes[side].textContent = state;
        [strip, pool][side].setAttribute("aria-label", state);
      });
      root.dataset.state = JSON.stringify({ regions, tables });
      return sentence;
    };
  }

  // ---- How tall a player gets: it is so from the start, and nothing on the page moves while it plays.

  // The moments worth measuring: those with most to write below the pages, and those with the longest sentences.
  function tallest({ events, words, size, ...trace }) {
    const tell = teller({ events, words, size, ...trace }), state = fresh(), moments = [];
    const long = (tokens) => tokens.reduce((sum, token) => sum + words[token].length + 1, 0);
    events.forEach((event, index) => {
      const sentence = tell(state, index);
      apply(state, event, size);
      const live = Object.keys(state.tables).map((each) => long(state.tokens[each]) + 6 * state.tables[each].length + 40);
      const ended = state.ended.slice(-4).map((each) => Math.min(160, long(state.tokens[each])) + 40);
      moments.push([index + 1, live.concat(ended).reduce((sum, each) => sum + each, 0), sentence]);
    });
    const most = (weight) => moments.slice().sort((a, b) => weight(b) - weight(a)).slice(0, 4);
    return { positions: most((each) => each[1]).map((each) => each[0]), sentences: most((each) => each[2].length).map((each) => each[2]) };
  }

  // ---- The controls.

  const SPEEDS = [[0.5, "½×"], [1, "1×"], [2, "2×"], [4, "4×"], [16, "16×"]];
  const CONTROLS = '<div class="bar"><button type="button" data-do="play">Play</button>' +
    '<button type="button" data-do="back">Back</button><button type="button" data-do="step">Step</button>' +
    '<button type="button" data-do="next">Next mark</button><select data-do="speed" aria-label="Speed">' +
    SPEEDS.map(([speed, shown]) => `<option value="${speed}"${speed === 1 ? " selected" : ""}>${shown}</option>`).join("") +
    '</select><label><input type="checkbox" data-do="stop" checked>pause at marks</label></div>' +
    '<div class="bar"><div class="track"><input type="range" data-do="scrub" min="0" value="0" aria-label="Position in the trace">' +
    '<div class="marks" aria-hidden="true"></div></div><span class="count"></span></div>';
  const KEYS = '<p class="keys">Play begins at the start. Keys: space plays and pauses; ← and → step, with shift from mark to mark; Home, End.</p>';

  function start(root) {
    root.dataset.ready = "";
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    let events;
    if (data.events) events = data.events = data.events.map(([kind, sequence = null, pages = [], tokens = [], number = 0]) =>
      [data.kinds[kind], sequence, pages || [], tokens || [], number]);
    const last = events ? events.length : data.frames.length - 1;
    root.querySelector(".frame").innerHTML = events ? '<div class="pool" role="img"></div><p class="note"></p><ol></ol>'
      : '<div class="strip" role="img"></div><p class="note"></p><div class="pool" role="img"></div><p class="note"></p>';
    root.querySelector(".say").insertAdjacentHTML("beforebegin", CONTROLS);
    root.querySelector(".frame").insertAdjacentHTML("afterend", KEYS);
    const show = (events ? traceScene : comparisonScene)(root, data);
    const find = (name) => root.querySelector(`[data-do="${name}"]`);
    const say = root.querySelector(".say"), count = root.querySelector(".count"), frame = root.querySelector(".frame");
    const slider = find("scrub"), play = find("play"), speed = find("speed"), stopping = find("stop");
    const tall = events ? tallest(data) : { positions: data.frames.map((_, index) => index), sentences: data.frames.map(([sentence]) => sentence) };
    let position = 0, timer = null, untouched = true;

    function go(to) {
      position = Math.max(0, Math.min(last, to));
      root.dataset.sentence = show(position);
      root.dataset.event = position;
      say.textContent = root.dataset.sentence;
      count.textContent = `${position} of ${last}`;
      slider.value = position;
      slider.setAttribute("aria-valuetext", `event ${position} of ${last}`);
      untouched = false;
    }
    function measure() {
      const here = position, before = untouched;
      say.style.minHeight = frame.style.minHeight = "";
      const heights = tall.positions.map((each) => (go(each), frame.offsetHeight));
      const spoken = tall.sentences.map((each) => ((say.textContent = each), say.offsetHeight));
      go(here);
      frame.style.minHeight = Math.max(...heights) + "px";
      say.style.minHeight = Math.max(...spoken) + "px";
      untouched = before;
    }
    function pause() {
      clearTimeout(timer);
      timer = null;
      play.textContent = "Play";
      say.setAttribute("aria-live", "polite");
    }
    function tick() {
      go(position + 1);
      if (position === last || (stopping.checked && data.stops.includes(position))) pause();
      else timer = setTimeout(tick, 900 / speed.value);
    }
    function toggle() {
      if (timer !== null) return pause();
      if (position === last || untouched) go(0); // it opens in the middle, as a film is shown by one of its pictures
      play.textContent = "Pause";
      say.setAttribute("aria-live", "off"); // a screen reader could not keep up
      timer = setTimeout(tick, 300 / speed.value);
    }
    const stopAfter = () => data.stops.find((stop) => stop > position) ?? last;
    const stopBefore = () => data.stops.filter((stop) => stop < position).pop() ?? 0;
    const to = (target) => { pause(); go(target); };
    const actions = {
      play: toggle, back: () => to(position - 1), step: () => to(position + 1), next: () => to(stopAfter()),
    };
    for (const action in actions) find(action).addEventListener("click", actions[action]);
    slider.addEventListener("input", () => to(+slider.value));
    root.addEventListener("keydown", (key) => {
      const kind = key.target.tagName, typed = key.target.type;
      if (key.ctrlKey || key.metaKey || key.altKey || kind === "SELECT") return;
      if (key.key === " " && (kind === "BUTTON" || typed === "checkbox")) return;
      const moves = {
        " ": toggle, k: toggle, Home: () => to(0), End: () => to(last), n: () => to(stopAfter()), p: () => to(stopBefore()),
        ArrowRight: () => to(key.shiftKey ? stopAfter() : position + 1), ArrowLeft: () => to(key.shiftKey ? stopBefore() : position - 1),
      };
      if (!moves[key.key]) return;
      key.preventDefault();
      key.stopPropagation(); // a notebook has other uses for these keys
      moves[key.key]();
    });
    slider.max = last;
    root.querySelector(".marks").innerHTML = data.stops.map((stop) => `<i style="left:${(100 * stop) / last}%"></i>`).join("");
    go(data.opening);
    untouched = true;
    let width = root.offsetWidth;
    measure();
    new ResizeObserver(() => {
      if (root.offsetWidth !== width) (width = root.offsetWidth), measure();
    }).observe(root);
  }

  if (typeof document === "object") document.querySelectorAll(".kvt:not([data-ready])").forEach(start);
  else module.exports = { fresh, apply, teller };
})();
