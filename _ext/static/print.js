// On paper nothing unfolds and nothing plays: folded text is opened, and a player shows its marked moments. A listing or a
// table stays whole; one that takes a large part of a sheet may go on overleaf, or it would leave the rest of a sheet empty.
(function () {
  "use strict";

  const MOST = 6; // moments of one player
  const LONG = 400; // pixels, of the thousand on a sheet
  let folded = [];

  function moments(player) {
    const { stops, opening } = JSON.parse(player.querySelector('script[type="application/json"]').textContent);
    const scrub = player.querySelector('[data-do="scrub"]'), here = scrub.value, last = +scrub.max;
    const to = (position) => {
      scrub.value = position;
      scrub.dispatchEvent(new Event("input"));
    };
    const marked = stops.length > MOST - 1 ? stops.filter((_, index) => index % Math.ceil(stops.length / (MOST - 1)) === 0) : stops;
    const shown = document.createElement("div");
    shown.className = "moments";
    for (const position of [...new Set([...(marked.length ? marked : [opening]), last])]) {
      to(position);
      const moment = document.createElement("div");
      moment.append(`${position} of ${last}`, player.querySelector(".say").cloneNode(true), player.querySelector(".frame").cloneNode(true));
      moment.querySelector(".frame").style.minHeight = moment.querySelector(".say").style.minHeight = "";
      shown.append(moment);
    }
    to(here);
    player.append(shown);
  }

  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((each) => (each.open = true));
    document.querySelectorAll(".kvt[data-ready]:not(:has(> .moments))").forEach(moments);
    document.querySelectorAll(".bd-article :is(pre, table)").forEach((each) => each.classList.toggle("long", each.offsetHeight > LONG));
  });
  addEventListener("afterprint", () => {
    folded.forEach((each) => (each.open = false));
    document.querySelectorAll(".moments").forEach((each) => each.remove());
  });
})();
