"""The recall model's language: who hid what where, and questions about it, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """
    Ada Alf Amy Ben Bo Cal Cy Dan Dee Dov Eli Emma Eva Fay Finn Flo Gil Gus Hal Hana Ian Ida Igor Ivy Jan Jo
    June Kai Kit Lea Leo Liv Lou Mia Mo Nan Ned Nia Noa Ola Omar Otto Pam Pia Quin Ray Rex Ria Rosa Roy Sam Sol
    Sue Tam Ted Tom Una Uri Val Vera Wes Yan Yuki Zoe
    """
)
THINGS = _words(
    """
    acorn almond anchor apple apron arrow axe badge ball banana bangle banner bean bell belt bone book boot
    bottle bow bowl bracelet bread brick broom brush bucket buckle bulb button cake camera candle cap card
    carpet carrot chain chalk cheese chisel clock cloak coat coin comb compass cork crown cup dagger diamond
    dice doll drum earring egg emerald envelope fan feather fig flag flask flute fork gem glove goblet gong
    hammer harp hat helmet honey hook horn horseshoe jewel kettle key kite knife ladle lamp lantern lemon lens
    letter lock locket magnet mallet map marble mask match medal melon mirror mitten mug nail napkin necklace
    needle net nut oar onion opal orange pan parcel peach pear pearl pebble pen pencil pepper pillow pin pipe
    plate plum pot potato puppet puzzle quill radio rattle razor ribbon ring robe rope rose ruby ruler saddle
    sandal saucer saw scarf scissors scroll shawl shell shield shoe sickle sock spade spoon stamp stone sword
    teapot thimble ticket torch towel tray trophy trumpet umbrella vase violin wallet watch whistle wig wreath
    """
)
PREPOSITIONS = ("in", "under", "behind", "beside", "near")
PREPOSITIONS_OF = {  # the places that take these prepositions
    ("in", "near"): _words(
        """
        attic barn cabin castle cellar chapel garage kitchen library mill pantry stable tower
        """
    ),
    ("under", "behind", "beside"): _words(
        """
        bed bench bridge bush couch curtain desk door fence hedge ladder oak piano rug statue stove table
        wagon wall willow
        """
    ),
    ("in", "under", "beside"): _words(
        """
        barrel basket boat box canoe cart chest crate cupboard drawer jar nest sack tub well
        """
    ),
}
PLACES = tuple(place for places in PREPOSITIONS_OF.values() for place in places)
KINDS = ("looks", "where", "who")


@dataclass(frozen=True)
class Fact:
    """Who hid what where. Its text is eight tokens: a page of 16 slots holds two facts."""

    name: str
    thing: str
    preposition: str
    place: str

    @property
    def text(self) -> str:
        """The sentence: "Ada hid the coin in the attic." """
        return f"{self.name} hid the {self.thing} {self.preposition} the {self.place}."


@dataclass(frozen=True)
class Question:
    """A question about one fact: `prompt` goes after the story's text, `answer` is the continuation expected."""

    fact: Fact
    kind: str
    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """The question with its answer, as a conversation that goes on holds it."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Story:
    """Facts, the text that tells them, and questions about them."""

    facts: tuple[Fact, ...]
    text: str
    questions: tuple[Question, ...]


def ask(fact: Fact, kind: str = "looks", asker: str = "Cy") -> Question:
    """The question of one kind about `fact`; only "looks" names an asker.

    looks: " Cy looks for the coin" -> " in the attic."
    where: " Where is the coin?"    -> " In the attic."
    who:   " Who hid the coin?"     -> " Ada."
    """
    if kind == "looks":
        return Question(fact, kind, f" {asker} looks for the {fact.thing}", f" {fact.preposition} the {fact.place}.")
    if kind == "where":
        answer = f" {fact.preposition.capitalize()} the {fact.place}."
        return Question(fact, kind, f" Where is the {fact.thing}?", answer)
    if kind == "who":
        return Question(fact, kind, f" Who hid the {fact.thing}?", f" {fact.name}.")
    raise ValueError(f"unknown kind of question {kind!r}: choose from {', '.join(KINDS)}")


def make_story(
    num_facts: int,
    num_questions: int = 1,
    seed: int = 0,
    *,
    kinds: Sequence[str] = KINDS,
    earlier: Sequence[Fact] = (),
) -> Story:
    """A story of `num_facts` sentences and `num_questions` questions; the same arguments give the same story.

    No thing is hidden twice. With `earlier` facts the story goes on after them: its text starts with a space, hides
    none of their things again, and its questions ask about old and new facts alike. Questions repeat a fact only
    once every fact has been asked about. ValueError where there are too few things, or no fact to ask about.
    """
    rng = random.Random(seed)
    hidden = {fact.thing for fact in earlier}
    free = [thing for thing in THINGS if thing not in hidden]
    if num_facts > len(free):
        raise ValueError(f"{num_facts} facts need as many things, and {len(free)} are left: ask for fewer facts")
    facts = tuple(_hide(thing, NAMES, PLACES, rng) for thing in rng.sample(free, num_facts))
    known = [*earlier, *facts]
    if num_questions and not known:
        raise ValueError(f"{num_questions} questions need a fact to ask about: ask for one fact at least")
    asked = _in_turns(known, rng)
    questions = tuple(ask(next(asked), rng.choice(kinds), rng.choice(NAMES)) for _ in range(num_questions))
    text = " ".join(fact.text for fact in facts)
    return Story(facts, " " + text if earlier and facts else text, questions)


def make_stories(
    count: int, num_facts: int, num_questions: int = 1, seed: int = 0, *, kinds: Sequence[str] = KINDS
) -> list[Story]:
    """Stories that cannot be taken for one another: the same things in the same order, but no name or place in common.

    So when one request reads another's page, the other's secret comes out. ValueError above 48 stories, 175 facts.
    """
    if count > len(PLACES):
        raise ValueError(f"{count} stories need as many places, and there are {len(PLACES)}: ask for fewer stories")
    if num_facts > len(THINGS):
        raise ValueError(f"{num_facts} facts need as many things, and there are {len(THINGS)}: ask for fewer facts")
    rng = random.Random(seed)
    names, places = rng.sample(NAMES, len(NAMES)), rng.sample(PLACES, len(PLACES))
    things = rng.sample(THINGS, num_facts)
    stories = []
    for index in range(count):
        own_names, own_places = names[index::count], places[index::count]
        facts = tuple(_hide(thing, own_names, own_places, rng) for thing in things)
        asked = _in_turns(facts, rng)
        questions = tuple(ask(next(asked), rng.choice(kinds), rng.choice(own_names)) for _ in range(num_questions))
        stories.append(Story(facts, " ".join(fact.text for fact in facts), questions))
    return stories


def _hide(thing: str, names: Sequence[str], places: Sequence[str], rng: random.Random) -> Fact:
    place = rng.choice(places)
    prepositions = next(group for group, members in PREPOSITIONS_OF.items() if place in members)
    return Fact(rng.choice(names), thing, rng.choice(prepositions), place)


def _in_turns(facts: Sequence[Fact], rng: random.Random) -> Iterator[Fact]:
    while True:
        yield from rng.sample(facts, len(facts))
