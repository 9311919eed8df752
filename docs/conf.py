"""The site's configuration: `make docs`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

from source_files import source_of as linkcode_resolve  # noqa: E402, F401

import diffenc_ct  # noqa: E402

project = "diffenc_ct"
author = "The diffenc_ct developers"
version = release = diffenc_ct.__version__
copyright = "The diffenc_ct developers, MIT license"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "mathml",
    "source_files",
    "docstrings",
    "public_names",
    "command_help",
    "results",
]
exclude_patterns = ["_build", "_ext"]
source_suffix = {
    ".md": "myst-nb",
    ".rst": "restructuredtext",
}  # .rst: docstrings, see _ext/docstrings.py
language = "en"
nitpicky = False

# Markdown. Heading anchors are spelt as the code host spells them, so that a link works in both places.
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 4
myst_dmath_double_inline = False
html_math_renderer = "mathml"
suppress_warnings = ["config.cache"]

# A tutorial's outputs are made when the site is built, and kept as long as its code stays the same.
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_ipywidgets_js = {}

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "diffenc_ct"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}

# Notebooks import this checkout; what other packages say of each other is left out of the pages.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:torch.jit._script")
