"""Mutants of patches and flips: positions, grids, what a step draws, what is refused and said."""

from tests.mutants import Mutant

PATCHES, FILES = "diffenc_ct/data/patches.py", "diffenc_ct/data/files.py"
IMAGES, DATASET = "diffenc_ct/data/images.py", "diffenc_ct/data/dataset.py"
EXAMPLES, BUILD = "diffenc_ct/training/examples.py", "diffenc_ct/training/build.py"
CUT, DRAWN = "tests/data/test_patches.py", "tests/training/test_examples.py"

MUTANTS = [
    Mutant(
        PATCHES,
        "torch.searchsorted(ends, numbers, right=True)",
        "torch.searchsorted(ends, numbers)",
        "the first position of an image taken for one behind the image before",
        (f"{CUT}::test_numbers_are_positions_row_by_row",),
    ),
    Mutant(
        PATCHES,
        "divmod(number, image.shape[2] - size + 1)",
        "divmod(number, image.shape[1] - size + 1)",
        "height and width of an image mixed up",
        (f"{CUT}::test_numbers_are_positions_row_by_row",),
    ),
    Mutant(
        PATCHES,
        "(torch.arange(0, many, self.size) for many in (rows, columns))",
        "(torch.arange(0, many - 1, self.size) for many in (rows, columns))",
        "the last patch lost where it ends at the edge",
        (f"{CUT}::test_a_grid_covers_whole_patches_once",),
    ),
    Mutant(
        PATCHES,
        "return (sides - self.size + 1).prod(1)",
        "return (sides - self.size).prod(1)",
        "the last row and column of positions never drawn",
        (f"{CUT}::test_numbers_are_positions_row_by_row",),
    ),
    Mutant(
        FILES,
        "grids.append(numbers[permutation(len(numbers), seed=0)])",
        "grids.append(numbers)",
        "an evaluation of few examples sees the first image only",
        (f"{CUT}::test_the_first_examples_are_of_all_images",),
    ),
    Mutant(
        FILES,
        "return _cut(str(path), train, test, patch, remarks)",
        "return _cut(str(path), train + test, test, patch, remarks)",
        "test images cropped in training",
        (f"{CUT}::test_whole_files_are_held_out",),
    ),
    Mutant(
        IMAGES,
        "min(image.shape[1:]) < patch",
        "max(image.shape[1:]) < patch",
        "an image refused only where both sides are too small",
        (f"{CUT}::test_unfit_files_are_refused_in_a_line",),
    ),
    Mutant(
        IMAGES,
        "    if _is_deep(image):",
        "    if False:",
        "sixteen bits rounded to eight without a word",
        (f"{CUT}::test_unfit_files_are_refused_in_a_line",),
    ),
    Mutant(
        EXAMPLES,
        "generator_for(seed, CROP, step)",
        "generator_for(seed, CROP)",
        "every step sees the same crops",
        (f"{DRAWN}::test_steps_and_seeds_see_other_crops",),
    ),
    Mutant(
        EXAMPLES,
        "source[numbers[rows]]",
        "source[numbers[: rows.stop - rows.start]]",
        "every process sees the first one's crops",
        (f"{DRAWN}::test_rows_are_those_of_the_whole_batch",),
    ),
    Mutant(
        EXAMPLES,
        "torch.randint(2**62, (size,), generator=generator) % len(source)",
        "torch.randint(2**7, (size,), generator=generator) % len(source)",
        "a range that the number of positions does not divide, and not much larger",
        (f"{DRAWN}::test_all_positions_are_alike",),
    ),
    Mutant(
        EXAMPLES,
        "x.flip(-1)",
        "x.flip(-2)",
        "images turned upside down",
        (f"{DRAWN}::test_flips_change_nothing_but_the_side",),
    ),
    Mutant(
        EXAMPLES,
        "generator_for(seed, FLIP, step)",
        "generator_for(seed, FLIP)",
        "a row of the batch is flipped always or never",
        (f"{DRAWN}::test_half_are_flipped",),
    ),
    Mutant(
        DATASET,
        "[flips] * self.flip",
        "[flips] * (self.source is not None)",
        "flips said of patches instead of flipped images",
        (f"{DRAWN}::test_only_training_flips",),
    ),
    Mutant(
        BUILD,
        'return "value" if config.data.patch is None else "channel"',
        'return "channel" if config.data.patch is None else "value"',
        "the two histograms swapped",
        (f"{DRAWN}::test_what_posterior_heads_begin_with",),
    ),
]
