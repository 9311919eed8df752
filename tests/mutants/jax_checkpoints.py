"""Mutants of the importer: parameters, options, models, bytes."""

from tests.mutants import Mutant

PARAMETERS, OPTIONS = "diffenc_ct/adapters/jax/parameters.py", "diffenc_ct/adapters/jax/options.py"
MODELS, BYTES = "diffenc_ct/adapters/jax/models.py", "diffenc_ct/adapters/jax/flax_msgpack.py"
FACE = "diffenc_ct/adapters/jax/checkpoints.py"
LAYOUTS = ("tests/adapters/test_jax_parameters.py::test_layouts_by_definition",)
NAMES = ("tests/adapters/test_jax_parameters.py::test_names_and_shapes_of_parameters",)
BY_PATH = ("tests/adapters/test_jax_parameters.py::test_parameters_are_refused_by_path",)
BY_NAME = ("tests/adapters/test_jax_options.py::test_options_are_refused_by_name",)
BITWISE = ("tests/adapters/test_jax_checkpoints.py::test_save_then_load_is_bitwise",)
SAVE = ("tests/adapters/test_jax_checkpoints.py::test_save_refuses_what_the_format_cannot_hold",)

MUTANTS = [
    Mutant(
        PARAMETERS,
        "lambda w: w.flip(0, 1).permute(2, 3, 0, 1),",
        "lambda w: w.permute(2, 3, 0, 1),",
        "transposed convolutions not turned",
        LAYOUTS,
    ),
    Mutant(
        PARAMETERS,
        '"project": "cond_proj",',
        '"project": "proj",',
        "another name of the condition's layer",
        NAMES,
    ),
    Mutant(
        PARAMETERS,
        'if array.dtype != "float32":',
        "if False:",
        "half precision taken for single",
        BY_PATH,
    ),
    Mutant(PARAMETERS, "    if left:", "    if False:", "left-over parameters ignored", BY_PATH),
    Mutant(
        OPTIONS,
        "if self.choices is not None and value not in self.choices:",
        "if False:",
        "unsupported values ignored",
        BY_NAME,
    ),
    Mutant(
        OPTIONS,
        'if network["pooling"] and network["down_conv"]:',
        "if False:",
        "both ways of shrinking at once",
        BY_NAME,
    ),
    Mutant(
        OPTIONS,
        'if encoder["vocab_size"] != options["vocab_size"]:',
        "if False:",
        "two numbers of levels",
        BY_NAME,
    ),
    Mutant(
        MODELS,
        "if value != expected.get(setting):",
        "if False:",
        "settings that their format cannot hold are lost",
        SAVE,
    ),
    Mutant(
        MODELS,
        '["start"] if options["gamma_reg"] else []',
        '["start"] if options["end_reg"] else []',
        "damping at the wrong end",
        BITWISE,
    ),
    Mutant(
        MODELS,
        '"k": 1.0 if inner is None else inner.scale,',
        '"k": 1.0,',
        "the encoder's scale is lost",
        BITWISE,
    ),
    Mutant(
        BYTES,
        "if math.prod(self.shape) * dtype.itemsize != len(self.data):",
        "if False:",
        "arrays of the wrong length reach numpy",
        ("tests/adapters/test_flax_msgpack.py::test_arrays_of_the_wrong_length",),
    ),
    Mutant(
        BYTES,
        "pieces = [chunks[str(i)] for i in range(len(chunks))]",
        "pieces = list(reversed([chunks[str(i)] for i in range(len(chunks))]))",
        "chunks joined in the wrong order",
        ("tests/adapters/test_flax_msgpack.py::test_chunked_arrays_are_joined",),
    ),
    Mutant(
        FACE,
        "    return model.eval()",
        "    return model",
        "dropout left on",
        BITWISE,
    ),
    Mutant(
        FACE,
        'name = "ema_params" if which == "ema" else "params"',
        'name = "ema_params"',
        "the averaged weights whatever is asked for",
        ("tests/adapters/test_jax_checkpoints.py::test_which_weights",),
    ),
]
