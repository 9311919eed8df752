"""Mutants of data: values, splits, formats, points."""

from tests.mutants import Mutant

DATASET, FILES = "diffenc_ct/data/dataset.py", "diffenc_ct/data/files.py"
NAMED, READERS = "diffenc_ct/data/named.py", "diffenc_ct/data/readers.py"
POINTS, TESTS = "diffenc_ct/data/points.py", "tests/data/test_data.py"

MUTANTS = [
    Mutant(
        DATASET,
        "if low < 0 or high >= levels:",
        "if low < 0 or high > levels:",
        "levels counted from one",
        ("tests/data/test_data.py::test_a_level_too_many_is_refused",),
    ),
    Mutant(
        FILES,
        "hashlib.sha256(name.encode())",
        "hashlib.sha256(f'{path}/{name}'.encode())",
        "a folder's split depends on where it lies",
        (f"{TESTS}::test_image_folders_keep_pixels_and_split",),
    ),
    Mutant(
        NAMED,
        "images[order[:-360]], images[order[-360:]]",
        "images[order[360:]], images[order[:360]]",
        "another split of digits than the published numbers'",
        (f"{TESTS}::test_digits_are_scikit_learns_and_split_for_good",),
    ),
    Mutant(
        READERS,
        "if len(data) - header != int(np.prod(shape)):",
        "if len(data) < header:",
        "truncated files read as far as they go",
        (f"{TESTS}::test_truncated_mnist_is_refused_by_name",),
    ),
    Mutant(
        READERS,
        'return {"data": np.load(path, allow_pickle=False)}',
        'return {"data": np.load(path, allow_pickle=True)}',
        "a data file executes code",
        (f"{TESTS}::test_arrays_never_execute_code",),
    ),
    Mutant(
        POINTS,
        "radius = 2 * theta + np.pi",
        "radius = 2 * theta",
        "the swirl begins at its centre",
        ("tests/data/test_points.py::test_swirl_is_a_swirl",),
    ),
]
