// On a phone the map of the system is wider than its box: the lit room comes into sight.
for (const lit of document.querySelectorAll(".kvs svg[role=group] rect.t")) {
  const box = lit.closest(".kvs"), room = lit.getBoundingClientRect(), seen = box.getBoundingClientRect();
  box.scrollLeft += room.left + room.width / 2 - seen.left - seen.width / 2;
}
