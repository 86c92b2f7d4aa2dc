"""What all playgrounds have in common: controls, a sentence about what they did, and a picture of what is there now."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from html import escape

from ipywidgets import HTML, Button, HBox, Layout, VBox, Widget

from kvpaged.figures.picture import Picture
from kvpaged.page_pool import OutOfPages

PAGE_SIZE = 4  # few slots, so that a short text fills several pages


class Playground(ABC):
    """Controls above a picture. On a page where no kernel answers, a note and the picture stand in their place."""

    name: str  # what it is called, and what its controls do, in the words of the note
    does: str

    def __init__(self, controls: list[Widget], sentence: str) -> None:
        self._sentence = HTML()
        self._picture = HTML()
        row = HBox(controls, layout=Layout(flex_flow="row wrap", align_items="center"))
        self.widget = VBox([row, self._sentence, self._picture])
        self._show(sentence)

    @abstractmethod
    def picture(self) -> Picture:
        """Draw what is there now."""

    @property
    def sentence(self) -> str:
        """What the last action did, or why it could not."""
        return self._said

    def act(self, action: Callable[[], str]) -> None:
        """Act, and show the outcome; a refusal is shown in the words of who refused."""
        try:
            said = action()
        except (OutOfPages, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
        self._show(said)

    def button(self, label: str, action: Callable[[], str]) -> Button:
        """Return a button that acts."""
        button = Button(description=label, layout=Layout(width="auto"))
        button.on_click(lambda _: self.act(action))
        return button

    def _show(self, said: str) -> None:
        self._said = said
        self._sentence.value = f'<p role="status">{escape(said)}</p>'
        self._picture.value = self.picture()._repr_html_()

    def __repr__(self) -> str:
        return f"{self.name}, which needs a running notebook: {self.does}. {self._said} {self.picture()!r}"

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        note = f"<p><strong>{self.name}.</strong> In a running notebook, {self.does}. Here you see where it begins.</p>"
        html = f"{note}<p>{escape(self._said)}</p>{self.picture()._repr_html_()}"
        return {**self.widget._repr_mimebundle_(**kwargs), "text/plain": repr(self), "text/html": html}
