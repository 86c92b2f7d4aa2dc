"""A playground in a running notebook: its controls as ipywidgets, above its sentence and its picture."""

from html import escape

from ipywidgets import HTML, Button, Dropdown, HBox, IntText, Layout, Text, VBox, Widget

from kvpaged.figures.playground.base import Control, Playground

FIELDS = {"number": IntText, "text": Text, "choice": Dropdown}


def widget(playground: Playground) -> VBox:
    """Return the controls of a playground, which work it and show what came of it."""
    made = [(control, make(control)) for control in playground.controls]
    sentence, picture = HTML(), HTML()

    def show() -> None:
        for control, each in made:
            if control.kind == "choice":
                each.options = control.choices
            if control.kind != "button":
                each.value = control.value
        sentence.value = f'<p role="status">{escape(playground.sentence)}</p>'
        picture.value = playground.picture()._repr_html_()

    def fill(control: Control, value: int | str) -> None:
        if value not in (control.value, None):  # else it is we who wrote it there
            playground.fill(control.label, value)
            show()

    def press(control: Control) -> None:
        playground.press(control.label)
        show()

    for control, each in made:
        if control.kind == "button":
            each.on_click(lambda _, control=control: press(control))
        else:
            each.observe(lambda change, control=control: fill(control, change["new"]), names="value")
    show()
    row = HBox([each for _, each in made], layout=Layout(flex_flow="row wrap", align_items="center"))
    return VBox([row, sentence, picture])


def make(control: Control) -> Widget:
    """The widget of one control."""
    if control.kind == "button":
        return Button(description=control.label, layout=Layout(width="auto"))
    look = {"layout": Layout(width="auto"), "style": {"description_width": "initial"}}
    if control.kind == "text":
        look["continuous_update"] = False
    return FIELDS[control.kind](description=control.label, **look)
