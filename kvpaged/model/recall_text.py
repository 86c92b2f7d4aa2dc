"""The recall model's language, under the name it had: see `kvpaged.recall.text`."""

from kvpaged.recall.text import *  # noqa: F403
