"""Chapter 4, the page pool: counting owners, and giving back many pages or none."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from kvpaged import mini
from kvpaged.exercises.exercise import Build, Case, Drawn, Function, Predict, Question, outcome
from kvpaged.exercises.small import draw_pool, pool_of, random_counts
from kvpaged.page_pool import PagePool


def _history(chance: Random) -> Question:
    """A few lines that allocate, share and release, and the counts at their end."""
    pool, lines = PagePool(4), ["pool = PagePool(4)"]
    names: dict[str, int] = {}
    owned: list[str] = []
    for _ in range(8):
        what = chance.choice(["allocate", "share", "release"] if owned else ["allocate"])
        if what == "allocate" and pool.num_free:
            name = "abcdefgh"[len(names)]
            names[name] = pool.allocate()
            owned.append(name)
            lines.append(f"{name} = pool.allocate()")
        elif what == "share":
            owned.append(name := chance.choice(owned))
            pool.share(names[name])
            lines.append(f"pool.share({name})")
        elif what == "release":
            owned.remove(name := chance.choice(owned))
            pool.release(names[name])
            lines.append(f"pool.release({name})")
    counts = tuple(pool.ref_count(page) for page in range(4))
    return Question("After these lines, what are the four reference counts?\n\n`" + "\n".join(lines) + "`", counts)


def _many_releases(chance: Random, size: int) -> Case:
    """Pages to be released at once: some stand there twice, some have nobody left."""
    counts = random_counts(chance, size)
    owned = [page for page, count in enumerate(counts) for _ in range(count)]
    pages = chance.sample(owned, chance.randint(0, len(owned)))
    if chance.random() < 0.5:
        pages.insert(chance.randint(0, len(pages)), chance.randrange(size))

    def run(release_many: Function) -> Drawn:
        pool = pool_of(counts)
        came = outcome(release_many, pool, [*pages], refusals=(AssertionError, ValueError))
        refused = "it refused" if "it raised" in came else "it accepted"
        seen = {
            "asked to release": refused,
            "reference counts afterwards": pool.ref_counts,
            "free pages afterwards": sorted(pool.free),
        }
        return Drawn(seen, lambda: {"the pool before": draw_pool(pool_of(counts)), "the pool after": draw_pool(pool)})

    return Case(f"`release_many(pool, {pages})`, where the pages have {counts} owners", run)


def _release_many(pool: Any, pages: list[int]) -> None:
    for page, count in Counter(pages).items():
        if pool.ref_counts[page] < count:
            raise AssertionError(f"page {page} is released {count} times")
    for page in pages:
        mini.release(pool, page)


EXERCISES = (
    Predict(
        number="4.1",
        title="counts after a few lines",
        instance=_history,
        hints=(
            "A count goes up by `allocate` (to 1) and by `share`, and down by `release`.",
            "A released page lies on top of the stack: it is the next to be allocated. A page never used comes only "
            "when the stack is empty.",
        ),
    ),
    Build(
        number="4.2",
        name="release_many",
        title="give back many pages, or none",
        cases=_many_releases,
        reference=_release_many,
        hints=(
            "Checking each page before you begin is not enough: each of two mentions passes the check on its own.",
            "`collections.Counter(pages)` says how often each page is mentioned.",
            "First compare each page's mentions with `pool.ref_counts[page]`, and raise if they are more. Only then "
            "release.",
        ),
    ),
)
