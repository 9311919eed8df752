"""Mutants of the configuration, the flags, the start of the command line, and the names of the root."""

from tests.mutants import Mutant

CONFIG, SETTINGS = "diffenc_ct/training/config.py", "diffenc_ct/training/settings.py"
CLI, FLAGS, ROOT = "diffenc_ct/cli/__init__.py", "diffenc_ct/cli/flags.py", "diffenc_ct/__init__.py"
READ, WORDS = "tests/training/test_config.py", "tests/cli/test_flags.py"
START, NAMES = "tests/cli/test_start.py", "tests/test_root.py"
OPTIONS, IDLE = "diffenc_ct/cli/options.py", "tests/cli/test_idle_options.py"
NUMBERS, JSON = "diffenc_ct/cli/numbers.py", "tests/cli/test_json.py"

MUTANTS = [
    Mutant(
        SETTINGS,
        'extra="forbid", strict=True',
        'extra="ignore", strict=True',
        "a misspelt key is passed over",
        (f"{READ}::test_refusals_name_key_and_remedy",),
    ),
    Mutant(
        SETTINGS,
        'extra="forbid", strict=True',
        'extra="forbid"',
        "true is one step",
        (f"{READ}::test_refusals_name_key_and_remedy",),
    ),
    Mutant(
        SETTINGS,
        'item["loc"][: len(path)] == place',
        'item["input"] is first["input"]',
        "two settings that are wrong alike are taken for one",
        (f"{READ}::test_of_two_faults_the_first_is_said",),
    ),
    Mutant(
        SETTINGS,
        'if values is first["input"]:',
        'if values == first["input"]:',
        "a NaN is not where it is looked for",
        (f"{READ}::test_refusals_name_key_and_remedy",),
    ),
    Mutant(
        CONFIG,
        "if batch % parts:",
        "if batch < parts:",
        "a batch that cannot be split evenly",
        (f"{READ}::test_refusals_name_key_and_remedy",),
    ),
    Mutant(
        SETTINGS,
        "strict=True, allow_inf_nan=False",
        "strict=True",
        "NaN is a number to pydantic",
        (f"{READ}::test_no_number_is_other_than_finite",),
    ),
    Mutant(
        SETTINGS,
        "if not 1e-38 < value < 1e38:",
        "if not 0 < value < 1e38:",
        "what float64 holds and float32 does not",
        (f"{READ}::test_refusals_name_key_and_remedy",),
    ),
    Mutant(
        FLAGS,
        'if optional and text.lower() == "none":',
        'if text.lower() == "none":',
        "a data set of the name none",
        (f"{WORDS}::test_words_become_settings",),
    ),
    Mutant(
        FLAGS,
        "default=argparse.SUPPRESS",
        "default=None",
        "flags that were not given override the preset",
        (f"{WORDS}::test_words_become_settings",),
    ),
    Mutant(
        FLAGS,
        "for kind in (int, float):",
        "for kind in (float,):",
        "a width of 8.0",
        (f"{WORDS}::test_words_become_settings",),
    ),
    Mutant(
        CLI,
        "make_parser(argv[:1])",
        "make_parser()",
        "every command's module is imported for every command",
        (f"{START}::test_what_needs_no_command_loads_nothing",),
    ),
    Mutant(
        CLI,
        "TypeError | OSError | ImportError)",
        "TypeError | OSError)",
        "a missing extra shows a traceback",
        (f"{START}::test_what_a_user_can_cause_is_one_line",),
    ),
    Mutant(
        CLI,
        "if rank == 0:",
        "if rank >= 0:",
        "every process says that all stop",
        (f"{START}::test_other_processes_say_only_their_own",),
    ),
    Mutant(
        ROOT,
        "if not (name in _HOME and isinstance(value, ModuleType)):",
        "if name not in _HOME or isinstance(value, ModuleType):",
        "the package elbo hides the function, in the order that nobody tried",
        (f"{NAMES}::test_a_function_is_not_hidden_by_the_package_of_its_name",),
    ),
    Mutant(
        ROOT,
        "if name not in _HOME:",
        "if name not in _HOME and name in _NAMES:",
        "a misspelt name is a KeyError",
        (f"{NAMES}::test_every_name_is_there_and_no_other",),
    ),
    Mutant(
        OPTIONS,
        "if name in arguments.given:",
        "if name in ():",
        "options without effect pass in silence",
        (f"{IDLE}::test_what_has_no_effect_or_no_meaning_is_refused_before_any_work",),
    ),
    Mutant(
        CLI,
        "if value is not _NOT_GIVEN}",
        "if value is not None}",
        "defaults are taken for options that were given",
        (f"{IDLE}::test_an_option_changes_what_is_said_or_is_refused",),
    ),
    Mutant(
        NUMBERS,
        "if number is None or number < least:",
        "if number is None:",
        "a batch of no examples",
        (f"{IDLE}::test_what_has_no_effect_or_no_meaning_is_refused_before_any_work",),
    ),
    Mutant(
        CLI,
        "if _is_out_of_memory(error):",
        "if False:",
        "a traceback where memory ran out",
        (f"{START}::test_out_of_memory_is_one_line_that_names_what_takes_less",),
    ),
    Mutant(
        CLI,
        "sys.path.append(os.getcwd())",
        "pass",
        "the console script does not find plug-ins that python -m finds",
        (f"{START}::test_plug_ins_of_the_working_directory_are_found",),
    ),
    Mutant(
        "diffenc_ct/cli/likelihood.py",
        "code = 0 if all(len(row.solved) for row in rows) else 1",
        "code = 0",
        "a table of nothing but failures is a success",
        (
            "tests/cli/test_cli_likelihood.py::test_an_image_that_cannot_be_solved_is_nan_and_counted",
        ),
    ),
    Mutant(
        CLI,
        "contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()",
        "contextlib.nullcontext()",
        "two languages on standard output",
        (f"{JSON}::test_one_object_with_the_numbers_that_people_see",),
    ),
    Mutant(
        CLI,
        "        if launched_rank() == 0:\n            print(result.json)",
        "        print(result.json)",
        "an object of every process",
        (f"{JSON}::test_of_several_processes_the_first_one_speaks",),
    ),
    Mutant(
        CLI,
        "return result.code",
        "return 0",
        "what failed is a success",
        (f"{JSON}::test_the_exit_code_stays",),
    ),
    Mutant(
        CLI,
        "return as_json({**self.values",
        'return __import__("json").dumps({**self.values',
        "NaN, which is no JSON",
        (f"{JSON}::test_what_is_not_finite_is_null",),
    ),
    Mutant(
        "diffenc_ct/cli/evaluate.py",
        "return Result(result, (path, table, picture))",
        "return Result(facts, (path, table, picture))",
        "no numbers in the object",
        (f"{JSON}::test_it_is_the_file_that_evaluate_writes",),
    ),
]
