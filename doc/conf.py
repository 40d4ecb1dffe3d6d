"""Sphinx settings; built with warnings as errors."""

from store_lib.version import VERSION

project = "store_lib"
author = "The store_lib authors"
project_copyright = author
release = version = VERSION

extensions = ["sphinx.ext.autodoc", "oslo_config.sphinxext", "cliff.sphinxext"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"store_lib {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

autoprogram_cliff_application = "store-lib"
# Of cliff's own options -f and -c are shown; `store-lib help COMMAND` has them all.
autoprogram_cliff_ignored = [
    "--help",
    "--noindent",
    "--prefix",
    "--quote",
    "--max-width",
    "--fit-width",
    "--print-empty",
    "--sort-column",
]
