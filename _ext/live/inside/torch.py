"""Stands in for torch in the page, which has none: the small engine imports it, and uses little of it there."""

from typing import Any, NoReturn


def no_grad() -> Any:
    """Decorate a function with nothing."""
    return lambda function: function


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):  # Python's own questions, asked of every module
        raise AttributeError(name)
    raise RuntimeError(f"torch is not in the page, and this needs torch.{name}: run this chapter in Jupyter.")
