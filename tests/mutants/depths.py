"""Mutants of depths."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/elbo/depths.py", "tests/elbo/test_depths.py"

MUTANTS = [
    Mutant(
        FILE,
        "index / (self.processes * batch)",
        "index / batch",
        "processes that draw the same depths",
        (f"{TESTS}::test_stratified_over_processes",),
    ),
    Mutant(
        FILE,
        "self.rank * batch + torch.arange",
        "self.rank + torch.arange",
        "processes whose depths overlap",
        (f"{TESTS}::test_stratified_over_processes",),
    ),
    Mutant(
        FILE,
        "_uniform((1,), like, generator)",
        "_uniform((batch,), like, generator)",
        "independent depths: no stratification",
        (f"{TESTS}::test_low_discrepancy",),
    ),
    Mutant(
        FILE,
        "(1 / density[cell]).to(like)",
        "density[cell].to(like)",
        "weights that square the density instead of cancelling it",
        (f"{TESTS}::test_importance_draws_follow_the_density",),
    ),
    Mutant(
        FILE,
        "weight = (squares / seen).sqrt()",
        "weight = squares / seen",
        "unbiased still, but not the density of least variance",
        (f"{TESTS}::test_importance_lowers_the_spread",),
    ),
    Mutant(
        FILE,
        "self.floor + (1 - self.floor) * weight / weight.mean()",
        "self.floor + weight / weight.mean()",
        "a density of mass 1 + floor",
        (f"{TESTS}::test_importance_density",),
    ),
    Mutant(
        FILE,
        "self.moments = self.decay * self.moments + counted",
        "self.moments = self.moments + counted",
        "the count does not forget, the sum does",
        (f"{TESTS}::test_importance_average_forgets",),
    ),
    Mutant(
        FILE,
        "right = depth > 0 and grid.shape == (depth + 1,)",
        "right = grid.shape == (depth + 1,)",
        "a grid of one depth or none: no step",
        ("tests/elbo/test_bounds.py::test_finite_depth_refuses",),
    ),
]
