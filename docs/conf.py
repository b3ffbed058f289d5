"""Settings of Sphinx. `make docs` builds the pages; each warning is an error."""

import inspect
import pathlib

from sphinx.util import logging

from moco_tf.version import VERSION

project = "moco_tf"
copyright = "2026 The moco_tf authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["protocols/*"]
html_theme = "furo"
html_title = f"moco_tf {VERSION}"
html_show_sourcelink = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"

HERE = pathlib.Path(__file__).parent


def require_docstring(app, what, name, thing, options, lines):
    """Warns, which fails the build, where a documented name has no docstring of its own."""
    if what in ("class", "function", "method") and not (inspect.getdoc(thing) or "").strip():
        logging.getLogger(__name__).warning("%s has no docstring", name)


def mark_code(app, what, name, thing, options, lines):
    """Turns the colon before an indented block after an empty line into the mark of code, "::"."""
    for i in range(len(lines) - 2):
        indents = [len(line) - len(line.lstrip()) for line in (lines[i], lines[i + 2])]
        starts_block = not lines[i + 1].strip() and indents[1] > indents[0]
        if lines[i].endswith(":") and not lines[i].endswith("::") and starts_block:
            lines[i] += ":"


def setup(app):
    """Connects what docstrings go through, the last before Napoleon reads their sections."""
    app.connect("autodoc-process-docstring", require_docstring)
    app.connect("autodoc-process-docstring", mark_code, priority=400)
