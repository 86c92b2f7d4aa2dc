"""The bibliography names a paper as the chapters cite it: Kwon et al., 2023."""

from collections.abc import Iterable, Iterator
from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class AuthorYearLabels(BaseLabelStyle):
    """Last names of one or two authors, or of the first, and the year."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        """Yield the label of each entry, in order. Works that would be cited alike have a letter in their year."""
        return map(self.label, sorted_entries)

    def label(self, entry: Entry) -> str:
        """Names and year."""
        names = [" ".join([*each.prelast_names, *each.last_names]) for each in entry.persons["author"]]
        several = len(names) > 2 or "others" in names
        first = f"{names[0]} et al." if several else " and ".join(names)
        return f"{first}, {entry.fields['year']}".replace("{", "").replace("}", "")


class AuthorYearStyle(Style):  # type: ignore[misc]
    """Entries in the order of their authors, labelled as they are cited."""

    default_sorting_style = "author_year_title"
    default_label_style = AuthorYearLabels


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the style."""
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
