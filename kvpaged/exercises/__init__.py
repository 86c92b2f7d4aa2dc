"""The book's exercises, and who judges them: `ask`, `check`, `hint`, `progress`.

An exercise is *predict* (say a number before you compute it), *build* (write a function) or *debug* (mend one that is
wrong). The checker compares an answer with the small engine, or with a few lines that cannot be wrong, over many random
cases; it shows the smallest case in which they part, and one hint. It never shows the solution.
"""

from kvpaged.exercises.asking import ask, check, hint
from kvpaged.exercises.progress import Progress, progress
from kvpaged.exercises.shelf import exercises, find
from kvpaged.exercises.verdict import Verdict

__all__ = ["Progress", "Verdict", "ask", "check", "exercises", "find", "hint", "progress"]
