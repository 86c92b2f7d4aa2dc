"""What all playgrounds have in common: controls, a sentence about what they did, and a picture of what is there now."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from kvpaged.figures.picture import Picture
from kvpaged.page_pool import OutOfPages

PAGE_SIZE = 4  # few slots, so that a short text fills several pages


@dataclass
class Control:
    """Something to work a playground with: a button, or a field and what stands in it."""

    kind: Literal["button", "number", "text", "choice"]
    label: str
    value: int | str = ""
    choices: list[str] = field(default_factory=list)


class Playground(ABC):
    """Controls above a picture, whatever shows them: a notebook does it with widgets, the book with a script.

    A button is pressed by its label, and acts by the method of that name. Where nothing answers, a note and the picture
    stand in the place of the controls.
    """

    name: str  # what it is called, and what its controls do, in the words of the note
    does: str

    def __init__(self, controls: list[Control], sentence: str) -> None:
        self.controls = controls
        self.sentence = sentence  # what the last action did, or why it could not

    @abstractmethod
    def picture(self) -> Picture:
        """Draw what is there now."""

    def press(self, label: str) -> None:
        """Press a button."""
        self.act(getattr(self, self[label].label))

    def fill(self, label: str, value: int | str) -> None:
        """Put a value into a field."""
        self[label].value = value

    def act(self, action: Callable[[], str]) -> None:
        """Act, and say the outcome; a refusal is said in the words of who refused."""
        try:
            self.sentence = action()
        except (OutOfPages, ValueError) as error:
            self.sentence = f"{type(error).__name__}: {error}"

    def __getitem__(self, label: str) -> Control:
        return next(control for control in self.controls if control.label == label)

    def __repr__(self) -> str:
        return f"{self.name}. Run the cell, and {self.does}. {self.sentence} {self.picture()!r}"

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        from kvpaged.figures.playground.widgets import widget  # a notebook has ipywidgets; the page has not

        note = f"<p><strong>{self.name}.</strong> Run the cell, and {self.does}. Here you see where it begins.</p>"
        html = f"{note}<p>{escape(self.sentence)}</p>{self.picture()._repr_html_()}"
        return {**widget(self)._repr_mimebundle_(**kwargs), "text/plain": repr(self), "text/html": html}
