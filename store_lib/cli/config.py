"""Finds and opens the configured stores of ``store-lib``."""

import os
from collections.abc import Mapping, Sequence

from oslo_config import cfg

from store_lib import Stores
from store_lib.config import RESERVED_DATADIR, Selection, StoreSection
from store_lib.exceptions import BadStoreConfiguration

#: Environment variable that lists configuration files, separated as in ``PATH``.
VARIABLE = "STORE_LIB_CONFIG"

#: Id of the store that is used without a configuration.
LOCAL = "local"

#: Ids of Glance's reserved stores: for staged images, and for its tasks.
_RESERVED = ("os_glance_staging_store", "os_glance_tasks_store")


def open_stores(
    files: Sequence[str] = (),
    directories: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Stores:
    """Open the stores of the first configuration that exists.

    The order is: the given files and directories; the files in ``STORE_LIB_CONFIG``;
    ``store_lib/store_lib.conf`` in the user's XDG configuration directory; a filesystem store
    named ``local`` in the user's XDG data directory.

    :raises BadStoreConfiguration: a file is missing or invalid
    """
    files, directories = _configured(files, directories, environ)
    if files or directories:
        return Stores.from_files(*files, directories=directories)
    objects = os.path.join(_home(environ, "XDG_DATA_HOME", ".local/share"), "objects")
    return Stores.from_mapping(
        {
            "DEFAULT": {"enabled_backends": f"{LOCAL}:file"},
            "glance_store": {"default_backend": LOCAL},
            # In oslo.config a dollar sign is a reference to another option.
            LOCAL: {"filesystem_store_datadir": objects.replace("$", "$$")},
        }
    )


def open_reserved_stores(
    files: Sequence[str] = (),
    directories: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Stores:
    """Open Glance's reserved stores, if the configuration is Glance's.

    They are not in ``enabled_backends``.  Only those whose directory exists are opened, so that
    nothing is created.

    :raises BadStoreConfiguration: a file is missing or invalid
    """
    files, directories = _configured(files, directories, environ)
    sections = []
    values = {}
    for store_id, directory in _reserved_directories(files, directories).items():
        sections.append(StoreSection(store_id, "file", store_id))
        if directory is not None:
            values[store_id] = {"filesystem_store_datadir": directory.replace("$", "$$")}
    names = [section.store_id for section in sections]
    return Stores(
        Selection(None, sections, names, files=files, directories=directories, values=values)
    )


def _reserved_directories(
    files: Sequence[str], directories: Sequence[str]
) -> dict[str, str | None]:
    """Return the existing directories of Glance's reserved stores by store id.

    The value is ``None`` if a store has several directories, which it reads from its section.
    """
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.DictOpt("enabled_backends"), cfg.StrOpt("node_staging_uri")])
    conf.register_opt(cfg.StrOpt("work_dir"), group="task")
    for store_id in _RESERVED:
        conf.register_opt(cfg.StrOpt("filesystem_store_datadir"), group=store_id)
        conf.register_opt(cfg.MultiStrOpt("filesystem_store_datadirs"), group=store_id)
    existing: dict[str, str | None] = {}
    try:
        conf(
            [],
            project="store_lib",
            default_config_files=list(files),
            default_config_dirs=list(directories),
        )
        # The old single-store form has these options instead of the sections.
        old = dict(zip(_RESERVED, (conf.node_staging_uri, conf.task.work_dir), strict=True))
        for store_id in _RESERVED:
            section = conf[store_id]
            if section.filesystem_store_datadirs:
                existing[store_id] = None
                continue
            directory = section.filesystem_store_datadir
            if not directory and conf.enabled_backends:
                directory = RESERVED_DATADIR.format(store_id)
            elif not directory:
                directory = (old[store_id] or "").removeprefix("file://")
            if directory and os.path.lexists(directory):
                existing[store_id] = directory
    except (cfg.Error, ValueError) as error:
        raise BadStoreConfiguration(f"Cannot read the configuration: {error}") from error
    return existing


def _configured(
    files: Sequence[str], directories: Sequence[str], environ: Mapping[str, str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the files and directories of the configuration, empty without one."""
    if files or directories:
        return files, directories
    named = [path for path in environ.get(VARIABLE, "").split(os.pathsep) if path]
    if named:
        return named, ()
    own = os.path.join(_home(environ, "XDG_CONFIG_HOME", ".config"), "store_lib.conf")
    return ([own] if os.path.exists(own) else []), ()


def _home(environ: Mapping[str, str], variable: str, default: str) -> str:
    """Return the library's directory in an XDG base directory; a relative base is ignored."""
    base = environ.get(variable, "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), default)
    return os.path.join(base, "store_lib")
