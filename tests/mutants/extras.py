"""Mutants of the extras."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/report/extras.py", "tests/packaging/test_extras.py"
MISSING = (f"{TESTS}::test_a_missing_package_is_one_line_that_says_what_to_install",)
INSTALLED = (f"{TESTS}::test_what_is_installed_is_returned",)

MUTANTS = [
    Mutant(
        FILE,
        "        if error.name != package:",
        "        if False:",
        "a broken package is said to be missing, and installing it again does not help",
        INSTALLED,
    ),
    Mutant(
        FILE,
        "        return import_module(module)",
        "        return __import__(module)",
        "the first package for the module in it",
        INSTALLED,
    ),
    Mutant(
        FILE,
        "    purpose = EXTRAS[extra]",
        '    purpose = EXTRAS.get(extra, "this")',
        "an extra that does not exist is advised",
        INSTALLED,
    ),
    Mutant(
        FILE,
        "_DISTRIBUTIONS.get(package, package)",
        "package",
        "pip installs another package of the import name",
        MISSING,
    ),
    Mutant(
        FILE,
        "    except ModuleNotFoundError as error:",
        "    except AttributeError as error:",
        "no advice at all",
        MISSING,
    ),
]
