"""A file store as Glance sees it."""

import functools
import os
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.exceptions import StoreError
from store_lib.glance.backed import BackedStore
from store_lib.glance.exceptions import NotFound
from store_lib.glance.location import scheme_of
from store_lib.store import Store as Backing
from store_lib.stores import Stores

LOG = get_logger(__name__)

#: Bytes, glance_store's default.
_CHUNK_SIZE = 64 * 1024


class Store(BackedStore):
    """Files in one or several directories.

    In the old single-store form Glance deletes through this store what it keeps in its own
    directories for staging and for tasks.  It never reads that through a store, and nobody else
    may: what lies there is other people's uploads.
    """

    DRIVER = "file"

    @property
    def datadir(self) -> str | None:
        """The directory, the first one of several; ``None`` where it is not known."""
        prefix = self.url_prefix
        if prefix is not None:
            return prefix.removeprefix("file://")
        configured: str | None = self.store_conf.get("filesystem_store_datadir")
        return configured

    @property
    def chunk_size(self) -> int:
        """Bytes that are read and written at a time, as far as they are configured.

        Where they are not, clients are told glance_store's default, which they expect.
        """
        if not self.store_conf.is_set("filesystem_store_chunk_size"):
            return _CHUNK_SIZE
        return int(self.store_conf.filesystem_store_chunk_size)

    @property
    def thin_provisioning(self) -> bool:
        """Whether blocks of zeros are left out."""
        return bool(self.store_conf.filesystem_thin_provisioning)

    def delete(self, location: Any, context: Any = None) -> None:
        """Remove a file; of a store that the service reserves also what broken uploads left."""
        uri = location.get_store_uri()
        own = self._own_store(uri)
        try:
            if own is not None:
                own.delete(uri, context=context)
            else:
                super().delete(location, context=context)
        finally:
            if own is not None or self.reserved:
                _discard_leftovers(own or self.configured, uri.rpartition("/")[2])

    def _own_store(self, uri: str) -> Backing | None:
        """Return a store over the service's own directory that a file lies in, if it does."""
        if self.backend_group is None and scheme_of(uri) in ("file", "filesystem"):
            folder = os.path.dirname(uri.partition("://")[2])
            if folder in self._own_directories():
                if not os.path.isdir(folder):
                    raise NotFound(image=uri)
                return _store_of(folder)
        return None

    def _own_directories(self) -> list[str]:
        """Return the directories that the service itself uses, as it writes them in URIs."""
        found = []
        for group, name in ((None, "node_staging_uri"), ("task", "work_dir")):
            value = _read(self.conf, group, name)
            if value:
                found.append(value.removeprefix("file://").rstrip("/"))
        return found


def _discard_leftovers(store: Backing, image_id: str) -> None:
    """Remove what uploads of an image that were killed have left.

    Glance does not know the names of such files, and nobody runs a sweep on its own stores.
    """
    try:
        store.sweep(0, object_id=image_id)
    except StoreError as error:
        LOG.warning("What uploads of image %s left could not be removed: %s", image_id, error)


@functools.lru_cache(maxsize=8)
def _store_of(folder: str) -> Backing:
    """Return a store over one directory and nothing else."""
    section = {
        "filesystem_store_datadir": folder,
        "filesystem_store_durable": "false",
        "filesystem_store_checked_publish": "true",
    }
    return Stores.from_mapping(
        {"DEFAULT": {"enabled_backends": {"own": "file"}}, "own": section}, strict=True
    )["own"]


def _read(conf: Any, group: str | None, name: str) -> str | None:
    """Return an option of the service, ``None`` where it has none of this name."""
    try:
        value = getattr(conf if group is None else conf[group], name)
    except (cfg.Error, AttributeError, KeyError, ValueError):
        return None
    return value if isinstance(value, str) else None
