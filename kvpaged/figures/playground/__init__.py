"""Playgrounds: the package's own objects, worked by hand in a running notebook. They need ipywidgets."""

from kvpaged.figures.playground.fork import ForkPlayground
from kvpaged.figures.playground.pool import PoolPlayground
from kvpaged.figures.playground.prefix import PrefixPlayground

__all__ = ["ForkPlayground", "PoolPlayground", "PrefixPlayground"]
