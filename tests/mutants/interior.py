"""Mutants of the gradient of a schedule's interior."""

from tests.mutants import Mutant

STEP, SCHEDULES = "diffenc_ct/training/step.py", "diffenc_ct/schedules.py"
TESTS = "tests/training/test_training_interior.py"
BY_PARAMETER = (f"{TESTS}::test_gradients_by_parameter",)

MUTANTS = [
    Mutant(
        STEP,
        "2 * terms.diffusion.detach()",
        "2 * terms.diffusion.detach().mean()",
        "the mean loss in the place of each example's",
        BY_PARAMETER,
    ),
    Mutant(
        STEP,
        "if point.gamma.ndim:",
        "if not point.gamma.ndim:",
        "the end points taken for the depths",
        BY_PARAMETER,
    ),
    Mutant(
        SCHEDULES,
        "return SchedulePoint(self.gamma_min + width * share, width * slope, (share, slope))",
        "gamma, rate = self.gamma_min + width * share, width * slope\n"
        "        return SchedulePoint(gamma, rate, (gamma, rate))",
        "end points trained by the variance",
        BY_PARAMETER,
    ),
    Mutant(
        SCHEDULES,
        "width * slope, (share, slope))",
        "width * slope, (share,))",
        "the variance's part through gamma' forgotten",
        BY_PARAMETER,
    ),
    Mutant(
        STEP,
        "for tensor in interior:",
        "for tensor in residuals.point.interior:",
        "taken behind the wrapper, where no gradient passes",
        (
            "tests/training/test_training_processes.py"
            "::test_a_parameter_that_never_gets_a_gradient_does_not_hinder_two_processes",
        ),
    ),
]
