"""Mutants of dynamics."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/dynamics.py", "tests/dynamics/test_dynamics.py"

MUTANTS = [
    Mutant(
        FILE,
        "z, point = self._images(y), self.schedule(1 - tau.to(y))",
        "z, point = self._images(y), self.schedule(tau.to(y))",
        "reverse time taken for t",
        (f"{TESTS}::test_the_reverse_sde_given_data_has_the_marginals",),
    ),
    Mutant(
        FILE,
        "return -reverse_drift(",
        "return reverse_drift(",
        "the drift's sign in reverse time",
        (f"{TESTS}::test_the_reverse_sde_given_data_has_the_marginals",),
    ),
    Mutant(
        FILE,
        "return (self.noise_level.squared(point.gamma) * point.beta).sqrt()",
        "return point.beta.sqrt()",
        "eta forgotten in the diffusion: right at eta = 1",
        (f"{TESTS}::test_the_generative_sde",),
    ),
    Mutant(
        FILE,
        "return point.beta.sqrt().expand_as(y)",
        "return point.beta.expand_as(y)",
        "the squared diffusion coefficient for its root",
        (f"{TESTS}::test_the_forward_sde_has_the_marginals",),
    ),
    Mutant(
        FILE,
        "return reverse_drift(z, found, point, torch.zeros_like(point.gamma))",
        "return reverse_drift(z, found, point, torch.ones_like(point.gamma))",
        "the SDE's drift for the flow's",
        (f"{TESTS}::test_the_flow_carries_quantiles",),
    ),
    Mutant(
        FILE,
        "point = SchedulePoint(gamma, torch.ones_like(gamma))",
        "point = SchedulePoint(gamma, -torch.ones_like(gamma))",
        "dz/dlambda for dz/dgamma",
        (f"{TESTS}::test_the_generative_sde",),
    ),
    Mutant(
        FILE,
        "return Estimates(encoding.value, encoding.rate)",
        "return Estimates(encoding.value, -encoding.rate)",
        "dx_t/dgamma for dx_t/dlambda",
        (f"{TESTS}::test_the_reverse_sde_given_data_has_the_marginals",),
    ),
]
