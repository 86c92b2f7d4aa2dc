"""Why is my hit rate what it is? Each prompt token of a trace, accounted for."""

from kvpaged.lab.explain.explanation import Explanation, explain
from kvpaged.lab.explain.ledger import Ledger
from kvpaged.lab.explain.parting import Parting
from kvpaged.lab.explain.verdict import Verdict

__all__ = ["Explanation", "Ledger", "Parting", "Verdict", "explain"]
