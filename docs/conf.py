"""How Sphinx builds this documentation: `tox -e docs`, without the network."""

import importlib.metadata

project = "wsclient"
author = "The wsclient contributors"
copyright = author
release = importlib.metadata.version("wsclient-trio")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]

# Since Sphinx 9, sphinxcontrib-trio's signatures (`async with …`) appear only with this.
autodoc_use_legacy_class_based = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Resource handling", "Error handling"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"wsclient {release}"
