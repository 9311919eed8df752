"""Mutants of figures and pictures."""

from tests.mutants import Mutant

VALUES, PICTURES = "diffenc_ct/report/values.py", "diffenc_ct/report/pictures.py"
FIGURES, TESTS = "diffenc_ct/report/figures.py", "tests/report/test_report.py"

MUTANTS = [
    Mutant(
        VALUES,
        "(x.clamp(-1, 1) + 1) / 2",
        "x.clamp(0, 1)",
        "negative reals shown black",
        (f"{TESTS}::test_pictures_are_grey_values",),
    ),
    Mutant(
        VALUES,
        "torch.linspace(0, 1, depths)",
        "torch.linspace(1, 0, depths)",
        "encodings from noise to data",
        (f"{TESTS}::test_encodings_are_those_of_the_encoder_at_equal_depths",),
    ),
    Mutant(
        PICTURES,
        "grid.permute(0, 3, 1, 4, 2)",
        "grid.permute(1, 3, 0, 4, 2)",
        "a grid filled by columns",
        (f"{TESTS}::test_a_grid_holds_every_image_in_its_place",),
    ),
    Mutant(
        FIGURES,
        '[row["error"] for row in rows]',
        '[row["error"] / 2 for row in rows]',
        "bars of half a standard error",
        (f"{TESTS}::test_the_loss_by_depth_is_the_evaluations",),
    ),
    Mutant(
        FIGURES,
        '"tab:blue" if c.passed else "tab:red"',
        '"tab:red" if c.passed else "tab:blue"',
        "what failed looks well",
        (f"{TESTS}::test_identities_are_drawn_with_their_verdicts",),
    ),
]
