"""Mutants of the gradient of a schedule's interior."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/training/interior.py", "tests/training/test_training_interior.py"

MUTANTS = [
    Mutant(
        FILE,
        "2 * diffusion.detach() * gradient",
        "2 * diffusion.detach().mean() * gradient",
        "the mean loss in the place of each example's",
        (f"{TESTS}::test_gradients_by_parameter",),
    ),
    Mutant(
        FILE,
        "if point.gamma.ndim:  # not an end point",
        "if not point.gamma.ndim:  # not an end point",
        "the end points taken for the depths",
        (f"{TESTS}::test_gradients_by_parameter",),
    ),
    Mutant(
        "diffenc_ct/schedules.py",
        "if id(parameter) not in ends",
        "",
        "end points trained by the variance",
        (f"{TESTS}::test_which_parameters_are_the_interior",),
    ),
    Mutant(
        FILE,
        "gradient for gradient in found[:2]]",
        "gradient for gradient in (found[0], 0 * found[1])]",
        "the variance's part through gamma' forgotten",
        (f"{TESTS}::test_gradients_by_parameter",),
    ),
]
