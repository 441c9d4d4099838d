"""Configuration of Sphinx: Markdown pages of the whole checkout, so that their links are those of plain files."""

import configparser
from pathlib import Path

from harness import __version__

TOP = Path(__file__).parent.parent
_setup = configparser.ConfigParser()
_setup.read(TOP / "setup.cfg")

project = _setup["metadata"]["name"]
version = release = __version__
copyright = f"the {project} authors, {_setup['metadata']['license']}"
root_doc = "docs/index"
extensions = ["myst_parser"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "docs/examples/*.md"]
myst_heading_anchors = 3
# A missing reference is a warning, and -W makes it an error.
nitpicky = True
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "description": _setup["metadata"]["description"]}
html_copy_source = False
