"""The nodes of a grid among candidate depths: the cheapest, or every so many-th.

With the cost of every step between N + 1 nodes, the best grid of T steps is a shortest path with T edges:

    best_k(t) = min_{s < t} best_{k-1}(s) + cost(s, t)

Reference: theory/calibration.py.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def shortest_path(cost: Float[Tensor, "nodes nodes"], steps: int) -> list[int]:
    """The nodes 0 = i_0 < i_1 < ... < i_steps = N of the cheapest path.

    Theorem: calibration.grid_cost.

    Args:
        cost: of each step, indexed (from, to).
        steps: how many edges the path has, 1 to N.

    Raises:
        ValueError: where there are fewer intervals.

    Example:
        >>> shortest_path(torch.tensor([[0.0, 5.0, 1.0, 9.0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]), 2)
        [0, 2, 3]
    """
    n = len(cost) - 1
    if not 1 <= steps <= n:
        raise ValueError(f"a path of {steps} steps through {n} intervals; give 1 to {n}")
    allowed = torch.ones_like(cost, dtype=torch.bool).triu(1)
    cost = cost.masked_fill(~allowed, torch.inf)
    best, came = cost[0], []
    for _ in range(steps - 1):
        best, source = (best[:, None] + cost).min(0)
        came.append(source)
    path = [n]
    for source in reversed(came):
        path.append(int(source[path[-1]]))
    return [0, *reversed(path)]


def uniform_nodes(n: int, depth: int) -> list[int]:
    """Every (n/depth)-th of the nodes 0..n.

    Args:
        n: how many intervals there are.
        depth: how many are to be left.

    Raises:
        ValueError: where the one is no multiple of the other.
    """
    if not 1 <= depth <= n or n % depth:
        raise ValueError(f"a uniform grid of {depth} steps needs candidates={n} to be a multiple")
    return list(range(0, n + 1, n // depth))
