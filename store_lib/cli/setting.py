"""Finds the configuration that ``store-lib`` works with."""

import os
from collections.abc import Mapping, Sequence

from store_lib import Stores

#: Environment variable with configuration files, separated as in ``PATH``.
VARIABLE = "STORE_LIB_CONFIG"

#: Id of the store that there is without any configuration.
LOCAL = "local"


def open_stores(
    files: Sequence[str] = (),
    directories: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Stores:
    """Open the stores of the first configuration that there is.

    In this order: the files and directories given; the files of ``STORE_LIB_CONFIG``;
    ``store_lib/store_lib.conf`` in the user's XDG configuration directory; a filesystem store
    named ``local`` in the user's XDG data directory.

    :raises BadStoreConfiguration: a file is missing or wrong
    """
    if files or directories:
        return Stores.from_files(*files, directories=directories)
    named = [path for path in environ.get(VARIABLE, "").split(os.pathsep) if path]
    if named:
        return Stores.from_files(*named)
    own = os.path.join(_home(environ, "XDG_CONFIG_HOME", ".config"), "store_lib.conf")
    if os.path.exists(own):
        return Stores.from_files(own)
    objects = os.path.join(_home(environ, "XDG_DATA_HOME", ".local/share"), "objects")
    return Stores.from_mapping(
        {
            "DEFAULT": {"enabled_backends": f"{LOCAL}:file"},
            "glance_store": {"default_backend": LOCAL},
            # oslo.config would take a dollar sign for a reference to another option.
            LOCAL: {"filesystem_store_datadir": objects.replace("$", "$$")},
        }
    )


def _home(environ: Mapping[str, str], variable: str, default: str) -> str:
    """Return the library's place in an XDG base directory, of which a relative one is ignored."""
    base = environ.get(variable, "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), default)
    return os.path.join(base, "store_lib")
