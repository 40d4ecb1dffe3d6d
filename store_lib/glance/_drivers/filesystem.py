"""The filesystem store."""

import functools
import os
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.exceptions import StoreError
from store_lib.glance._impl.adapter import StoreAdapter
from store_lib.glance.exceptions import NotFound
from store_lib.glance.location import scheme_of
from store_lib.store import Store as Backing
from store_lib.stores import Stores

LOG = get_logger(__name__)

#: glance_store's default in bytes.
_CHUNK_SIZE = 64 * 1024


class Store(StoreAdapter):
    """Stores objects as files in one or more directories.

    In the old single-store form, Glance also deletes the files of its own staging and task
    directories through this store.  They cannot be read through it: they are other users' uploads.
    """

    DRIVER = "file"

    @property
    def datadir(self) -> str | None:
        """The first or only directory, or ``None`` if unknown."""
        prefix = self.url_prefix
        if prefix is not None:
            return prefix.removeprefix("file://")
        configured: str | None = self.store_conf.get("filesystem_store_datadir")
        return configured

    @property
    def chunk_size(self) -> int:
        """Bytes to read and write at a time if configured, else glance_store's default."""
        if not self.store_conf.is_set("filesystem_store_chunk_size"):
            return _CHUNK_SIZE
        return int(self.store_conf.filesystem_store_chunk_size)

    @property
    def thin_provisioning(self) -> bool:
        """Whether blocks of zeros are stored as holes."""
        return bool(self.store_conf.filesystem_thin_provisioning)

    def delete(self, location: Any, context: Any = None) -> None:
        """Delete a file; in a reserved store, also the incomplete uploads of its image."""
        uri = location.get_store_uri()
        own = self._own_store(uri)
        try:
            if own is not None:
                own.delete(uri, context=context)
            else:
                super().delete(location, context=context)
        finally:
            if own is not None or self.reserved:
                _discard_incomplete(own or self.require_backing(), uri.rpartition("/")[2])

    def _own_store(self, uri: str) -> Backing | None:
        """Return a store over the directory of a file in one of the service's own directories."""
        if self.backend_group is None and scheme_of(uri) in ("file", "filesystem"):
            folder = os.path.dirname(uri.partition("://")[2])
            if folder in self._own_directories():
                if not os.path.isdir(folder):
                    raise NotFound(image=uri)
                return _store_of(folder)
        return None

    def _own_directories(self) -> list[str]:
        """Return the service's staging and task directories, as they appear in its URIs."""
        directories = []
        for group, name in ((None, "node_staging_uri"), ("task", "work_dir")):
            value = _read(self.conf, group, name)
            if value:
                directories.append(value.removeprefix("file://").rstrip("/"))
        return directories


def _discard_incomplete(store: Backing, image_id: str) -> None:
    """Remove the files of an image's interrupted uploads.

    Glance does not know their names, and operators do not sweep its reserved stores.
    """
    try:
        store.sweep(0, object_id=image_id)
    except StoreError as error:
        LOG.warning("The incomplete uploads of image %s could not be removed: %s", image_id, error)


@functools.lru_cache(maxsize=8)
def _store_of(folder: str) -> Backing:
    """Return a store over a single directory."""
    section = {
        "filesystem_store_datadir": folder,
        "filesystem_store_durable": "false",
        "filesystem_store_checked_publish": "true",
    }
    return Stores.from_mapping(
        {"DEFAULT": {"enabled_backends": {"own": "file"}}, "own": section}, strict=True
    )["own"]


def _read(conf: Any, group: str | None, name: str) -> str | None:
    """Return a string option of the service, ``None`` if it has no such option."""
    try:
        value = getattr(conf if group is None else conf[group], name)
    except (cfg.Error, AttributeError, KeyError, ValueError):
        return None
    return value if isinstance(value, str) else None
