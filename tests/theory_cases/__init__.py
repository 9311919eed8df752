"""What the code computes, theorem by theorem."""

from tests.theory_cases import heads, losses, processes
from tests.theory_cases.registry import CASES, Points, points

__all__ = ["CASES", "Points", "heads", "losses", "points", "processes"]
