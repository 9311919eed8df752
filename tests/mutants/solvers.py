"""Mutants of the solvers: exponential coefficients, noise, directions."""

from tests.mutants import Mutant

EXP, ADAPTERS = "diffenc_ct/sampling/exponential.py", "diffenc_ct/sampling/adapters.py"
PROBLEM, GRIDS = "diffenc_ct/sampling/problem.py", "diffenc_ct/sampling/grids.py"
TESTS, ORDERS = "tests/sampling/test_solvers.py", "tests/sampling/test_solver_orders.py"
EXACT = (f"{TESTS}::test_quadratic_heads_are_integrated_exactly",)
ORDER = (f"{ORDERS}::test_deterministic_order",)
WITH_NOISE = "tests/sampling/test_solver_orders_with_noise.py"
WEAK = (f"{WITH_NOISE}::test_weak_order_exactly",)

MUTANTS = [
    Mutant(
        EXP,
        "kappa = (1 + level.squared(-points)) / 2",
        "kappa = (1 - level.squared(-points)) / 2",
        "kappa of the conditional process for the probability flow's",
        (f"{TESTS}::test_constant_heads_are_integrated_exactly",),
    ),
    Mutant(
        EXP,
        "return 0.5 * (b - a + level.integral(-b, -a))",
        "return 0.5 * (b - a + level.integral(-a, -b))",
        "the integral of eta^2 taken in lambda, where it is given in gamma",
        (f"{TESTS}::test_constant_heads_are_integrated_exactly",),
    ),
    Mutant(
        EXP,
        "keep = torch.exp(-growth(points, b, level))",
        "keep = torch.exp(-growth(a, points, level))",
        "the weight of the other frame",
        EXACT,
    ),
    Mutant(
        EXP,
        "basis * sigma2(-points) / sigma2(-nodes)[:, None]",
        "basis * sigma2(-points) * sigma2(-nodes)[:, None]",
        "multiplied by sigma^2 at the node instead of divided",
        EXACT,
    ),
    Mutant(
        EXP,
        "* torch.exp(growth(a, nodes, level)), for_r.sum(1)",
        "* torch.exp(-growth(a, nodes, level)), for_r.sum(1)",
        "n scaled to the wrong end",
        EXACT,
    ),
    Mutant(
        EXP,
        "(node - others[:, None])).prod(0)",
        "(node + others[:, None])).prod(0)",
        "a sign in Lagrange's denominator",
        (f"{TESTS}::test_lagrange_basis",),
    ),
    Mutant(
        EXP,
        "known = [here, *known][:k]\n            before",
        "known = [here, *known][: max(1, k - 1)]\n            before",
        "one value of the past too few",
        ORDER,
    ),
    Mutant(
        EXP,
        "if known and (correct or len(known) < k - 1):",
        "if known and correct:",
        "the first step left at order 1",
        ORDER,
    ),
    Mutant(
        EXP,
        'u = advance(before, known[0].lam, a, values, level, "data") + noise',
        'u = advance(before, known[0].lam, a, values, level, "data")',
        "the corrector forgets the step's noise",
        WEAK,
    ),
    Mutant(
        EXP,
        "for share in (1 / 3, 2 / 3):",
        "for share in (1 / 3, 1 / 2):",
        "the midpoint where two thirds belong",
        ORDER,
    ),
    Mutant(
        EXP,
        "std = posterior_std(-b, -a, problem.noise_level) / alpha(-b)",
        "std = posterior_std(-b, -a, problem.noise_level)",
        "noise of z added to z/alpha",
        WEAK,
    ),
    Mutant(
        ADAPTERS,
        "self._U = h * (self._W / 2 + math.sqrt(h / 12) * self._noise(self._like))",
        "self._U = h * (self._W / 2 - math.sqrt(h / 6) * self._noise(self._like))",
        "the variance of the space-time integral doubled",
        (f"{WITH_NOISE}::test_strong_order_of_torchsde",),
    ),
    Mutant(
        ADAPTERS,
        "y, tau = z.flatten(1), (1 - grid.t).to(z)",
        "y, tau = z.flatten(1), grid.t.flip(0).to(z)",
        "depths taken for reverse time, which only a uniform grid forgives",
        ("tests/sampling/test_sampling.py::test_torchsde_steps_lie_on_the_grid",),
    ),
    Mutant(
        PROBLEM,
        "index = grid.steps - 1 - step",
        "index = step",
        "ratios counted from the noise",
        ("tests/sampling/test_sampling.py::test_ancestral_is_the_models_own_reverse",),
    ),
    Mutant(
        GRIDS,
        "above = schedule(middle).gamma > gamma",
        "above = schedule(middle).gamma < gamma",
        "bisection towards the wrong side",
        (f"{TESTS}::test_depth_of_inverts_the_schedule",),
    ),
]
