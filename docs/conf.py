"""How Sphinx builds this documentation: `tox -e docs`, without the network."""

import pathlib
import sys

import wsclient

# For _ext.py, which takes tables and drawings from the code.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

project = "wsclient"
author = "The wsclient contributors"
copyright = author
release = wsclient.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "_ext",
]

# Since Sphinx 9, sphinxcontrib-trio's signatures (`async with …`) appear only with this.
autodoc_use_legacy_class_based = True
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Resource handling", "Error handling"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"wsclient {release}"
