"""Speculation, under the name it had: see `kvpaged.engine.speculation`."""

from kvpaged.engine.speculation import *  # noqa: F403
