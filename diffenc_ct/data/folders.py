"""The images of a folder by name: which are for training and which for tests, and of which class each is."""

import hashlib
import os
from pathlib import Path

from diffenc_ct.data.images import image_paths
from diffenc_ct.data.splits import Split, held_out, part_of, split_by_name


def split_of_folder(path: Path) -> Split:
    """The names of a folder's images, paths in it, in the order of their examples.

    Args:
        path: of the folder.

    Raises:
        ValueError: where there are too few, and for files that two parts have or none.
    """
    names = [found.relative_to(path).as_posix() for found in image_paths(path)]
    split = split_by_name(names, _folders, f"data {str(path)!r}")
    split = _each_file_once(path, Split(names, []) if split is None else split)
    if split.test:
        return split
    ordered = sorted(split.train, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    last = held_out(len(ordered), str(path))
    return split._replace(train=ordered[last:], test=ordered[:last])


def class_of(path: Path, name: str) -> str:
    """The class of an image: the first folder on the way to it that is not called after a part.

    Args:
        path: of the folder that all are in.
        name: of the image, a path in it.

    Raises:
        ValueError: where there is no such folder.

    Example:
        >>> class_of(Path("pets"), "train/cats/1.png")
        'cats'
    """
    found = next((step for step in _folders(name) if not part_of(step)), None)
    if found is None:
        raise ValueError(
            f"{path / name} lies in no folder of a class; move it into one (cats/, dogs/, ...), or leave out "
            "--labels"
        )
    return found


def _folders(name: str) -> list[str]:
    """On the way to a file, a path with slashes."""
    return name.split("/")[:-1]


def _each_file_once(folder: Path, split: Split) -> Split:
    """Links may lead to a file by several ways: it is one example, and on one side.

    Raises:
        ValueError: for a file that is both for training and for tests.
    """
    train, test = (
        {os.path.realpath(folder / name): name for name in reversed(part)}
        for part in (split.train, split.test)
    )
    for file in train.keys() & test.keys():
        raise ValueError(
            f"{folder / train[file]} and {folder / test[file]} are one file, for training and for tests; remove one"
        )
    return split._replace(train=sorted(train.values()), test=sorted(test.values()))
