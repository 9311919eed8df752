"""Mutants of figures and pictures."""

from tests.mutants import Mutant

VALUES, PICTURES = "diffenc_ct/report/values.py", "diffenc_ct/report/pictures.py"
FIGURES, TESTS = "diffenc_ct/report/figures.py", "tests/report/test_report.py"
ROWS, CHARTS = "diffenc_ct/report/rows.py", "diffenc_ct/report/charts.py"
METRICS, ALBUM = "diffenc_ct/report/metrics.py", "diffenc_ct/report/album.py"
PAGE, FINDINGS = "diffenc_ct/report/page.py", "diffenc_ct/report/findings.py"
TEMPLATES = "diffenc_ct/report/templates"
OF_ROWS, OF_CHARTS = "tests/report/test_rows.py", "tests/report/test_charts.py"
OF_PAGE, SEEN = "tests/report/test_page.py", "tests/report/test_browser.py"

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
    Mutant(
        ROWS,
        "one.bits_per_dimension - other.bits_per_dimension",
        "other.bits_per_dimension - one.bits_per_dimension",
        "a difference of the wrong sign",
        (f"{OF_ROWS}::test_a_difference_is_taken_image_by_image",),
    ),
    Mutant(
        ROWS,
        "std().item() / math.sqrt(n) if",
        "std().item() / n if",
        "a standard error that falls too fast",
        (f"{OF_ROWS}::test_a_row_is_the_mean_over_its_images_and_its_standard_error",),
    ),
    Mutant(
        ROWS,
        '[("ok", "not solved")[int(missing)] for missing in values.isnan()]',
        "[]",
        "an image that one run could not solve makes the difference NaN",
        (f"{OF_ROWS}::test_a_difference_is_of_the_images_that_both_have",),
    ),
    Mutant(
        METRICS,
        "size = math.ceil(len(kept) / MOST) or 1",
        "size = 1",
        "a long run makes a page of megabytes",
        (f"{OF_ROWS}::test_a_long_curve_is_of_means_of_neighbours",),
    ),
    Mutant(
        METRICS,
        "alone = size == 1 and",
        "alone =",
        "the error of one row for a mean of many",
        (f"{OF_ROWS}::test_a_long_curve_is_of_means_of_neighbours",),
    ),
    Mutant(
        METRICS,
        'if math.isfinite(_number(row.get("step")))',
        "",
        "a row that a crash cut off",
        (f"{OF_ROWS}::test_a_row_that_a_crash_cut_off_is_left_out",),
    ),
    Mutant(
        CHARTS,
        "<title>{escape(said)}</title>",
        "<title>{said}</title>",
        "what a name says is obeyed",
        (f"{OF_CHARTS}::test_texts_are_escaped",),
    ),
    Mutant(
        CHARTS,
        "starts = [i for i in at if i - 1 not in at]",
        "starts = [i for i in at if i == 0]",
        "a line across what is not finite",
        (f"{OF_CHARTS}::test_what_is_not_finite_is_a_gap",),
    ),
    Mutant(
        CHARTS,
        "y.place(each.y[i] + each.bar(i))",
        "y.place(each.y[i] + 2 * each.bar(i))",
        "bars of two errors upwards",
        (f"{OF_CHARTS}::test_bars_are_one_standard_error_to_each_side",),
    ),
    Mutant(
        CHARTS,
        "Axis(low, high, HEIGHT - _BOTTOM, _TOP, log)",
        "Axis(low, high, _TOP, HEIGHT - _BOTTOM, log)",
        "large numbers at the bottom",
        (f"{OF_CHARTS}::test_every_point_is_drawn_once_in_order_and_says_its_numbers",),
    ),
    Mutant(
        CHARTS,
        "log = self.log and min(values) > 0",
        "log = self.log",
        "logarithms of what is negative",
        (f"{OF_CHARTS}::test_ratios_are_drawn_where_they_help",),
    ),
    Mutant(
        PAGE,
        "loader=loader, autoescape=True",
        "loader=loader, autoescape=False",
        "what a file says is obeyed",
        (f"{OF_PAGE}::test_what_comes_from_files_is_text",),
    ),
    Mutant(
        PAGE,
        "or not bool((one == two).all())",
        "",
        "runs on other examples are compared",
        (f"{OF_PAGE}::test_other_examples_of_one_shape_are_not_compared",),
    ),
    Mutant(
        PAGE,
        "_pairs(_rows(other), _rows(first))",
        "_pairs(_rows(first), _rows(other))",
        "the first run less the others",
        (f"{OF_PAGE}::test_differences_are_image_by_image_from_the_first",),
    ),
    Mutant(
        PAGE,
        "len(set(values)) > 1",
        "len(set(values)) == 1",
        "settings that agree are marked",
        (f"{OF_PAGE}::test_settings_that_differ_are_marked",),
    ),
    Mutant(
        FINDINGS,
        "draws=effort.draws, seed=effort.seed, work=work",
        "draws=effort.draws, work=work",
        "the seed changes nothing",
        (f"{OF_PAGE}::test_the_seed_is_that_of_all_draws",),
    ),
    Mutant(
        FINDINGS,
        "kind.load(path, model=opened.model)",
        "kind.load(path)",
        "a calibration of other weights",
        (
            f"{OF_PAGE}::test_calibration_is_shown_and_evaluated_and_that_of_other_weights_is_left_out",
        ),
    ),
    Mutant(
        ALBUM,
        "model = model.given(torch.arange(SAMPLES) % opened.classes)",
        "pass",
        "samples without labels of a model with labels",
        (f"{OF_PAGE}::test_of_labelled_images_each_is_given_its_own",),
    ),
    Mutant(
        ALBUM,
        "change / largest",
        "change",
        "a change that is not to its scale",
        (f"{OF_PAGE}::test_pictures_are_the_librarys",),
    ),
    Mutant(
        f"{TEMPLATES}/page.html",
        "'less' if first.mean < 0 else 'more'",
        "'more' if first.mean < 0 else 'less'",
        "the better run is called the worse",
        (f"{OF_PAGE}::test_differences_are_image_by_image_from_the_first",),
    ),
    Mutant(
        f"{TEMPLATES}/page.css",
        ".box { overflow-x: auto;",
        ".box {",
        "a table wider than the phone",
        (f"{SEEN}::test_it_fits_and_asks_for_nothing",),
    ),
    Mutant(
        f"{TEMPLATES}/page.js",
        "tip.hidden = false;",
        "",
        "nothing is shown under the pointer",
        (f"{SEEN}::test_the_pointer_is_told_numbers",),
    ),
]
