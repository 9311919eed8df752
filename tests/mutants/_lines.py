"""Which lines run: a shared table of bytes, one for each line, set to 1 by every process that runs it.

It needs nothing but the standard library, since a copy of the project has it as its `sitecustomize`: so processes that
a test starts write into the table of the test, whether they are forked or new, and also when they are killed.
"""

import json
import mmap
import os
import sys
import threading

FOLDER = "MUTANTS_LINES"  # of the table; unset where nothing is recorded


def create(folder, files):
    """A table for these files (absolute paths), in a folder.

    Returns:
        The place of each file's first line.
    """
    places, size = {}, 1
    for file in files:
        with open(file, "rb") as stream:
            places[file], size = size, size + stream.read().count(b"\n") + 2
    with open(os.path.join(folder, "places.json"), "w") as stream:
        json.dump(places, stream)
    with open(os.path.join(folder, "table"), "wb") as stream:
        stream.write(bytes(size))
    return places


def record(folder):
    """Mark every line that this process runs from now on; the table."""
    with open(os.path.join(folder, "places.json")) as stream:
        places = json.load(stream)
    with open(os.path.join(folder, "table"), "r+b") as stream:
        table = mmap.mmap(stream.fileno(), 0)

    def marker(place):
        def mark(frame, event, argument):
            table[place + frame.f_lineno] = 1
            return mark

        return mark

    markers = {file: marker(place) for file, place in places.items()}

    def enter(frame, event, argument):
        return markers.get(frame.f_code.co_filename)

    threading.settrace(enter)
    sys.settrace(enter)
    return table


if FOLDER in os.environ:
    record(os.environ[FOLDER])
