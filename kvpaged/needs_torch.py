"""Imported first by the rooms that need torch: where it is missing, says what to install."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError(
        "torch is not installed, and the model and the engine need it: pip install 'kvpaged[torch]'", name="torch"
    )
