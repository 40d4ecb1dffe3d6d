"""A look behind the rbd driver, at the pool itself, and small things that its tests share."""

import contextlib
import dataclasses
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from store_lib import Store

#: Makes the store ``it`` with these options besides user and configuration file.
MakeStore = Callable[..., Store]


def write_store(directory: Path, options: dict[str, Any]) -> Path:
    """Write the configuration of a store ``it``, without the options that are ``None``."""
    path = directory / f"{uuid.uuid4()}.conf"
    lines = [f"{name} = {value}" for name, value in options.items() if value is not None]
    path.write_text("\n".join(["[DEFAULT]", "enabled_backends = it:rbd", "[it]", *lines, ""]))
    return path


@dataclasses.dataclass
class Behind:
    """The pool as its administrator sees it."""

    ioctx: Any

    @contextlib.contextmanager
    def opened(self, name: str, snapshot: str | None = None) -> Iterator[Any]:
        """Have an image open, read-only and so without a watcher."""
        import rbd

        with rbd.Image(self.ioctx, name, read_only=True) as image:
            if snapshot is not None:
                image.set_snap(snapshot)
            yield image

    def names(self) -> list[str]:
        """Return the names of all images."""
        import rbd

        found: list[str] = rbd.RBD().list(self.ioctx)
        return found

    def objects(self) -> list[str]:
        """Return the names of the RADOS objects that images' data is in."""
        return [each.key for each in self.ioctx.list_objects() if each.key.startswith("rbd_data.")]

    def make(self, name: str, data: bytes, snapshot: str | None = "snap") -> None:
        """Make an image as other software does: no metadata, and a protected snapshot."""
        import rbd

        rbd.RBD().create(self.ioctx, name, max(len(data), 1), 22, old_format=False)
        with rbd.Image(self.ioctx, name) as image:
            image.write(data, 0)
            if snapshot is not None:
                image.create_snap(snapshot)
                image.protect_snap(snapshot)

    def remove(self, name: str) -> None:
        """Remove an image, whatever snapshots it has."""
        import rbd

        with rbd.Image(self.ioctx, name) as image:
            for each in list(image.list_snaps()):
                if image.is_protected_snap(each["name"]):
                    image.unprotect_snap(each["name"])
                image.remove_snap(each["name"])
        rbd.RBD().remove(self.ioctx, name)


def content(size: int, seed: int = 0) -> bytes:
    """Return bytes that tell where they belong."""
    return random.Random(seed).randbytes(size)


def read(store: Store, uri: str, *span: Any) -> bytes:
    """Return what is stored, or a range of it."""
    with store.get(uri, *span) as reader:
        return reader.read()


def no_watcher(behind: Behind, name: str) -> bool:
    """Say whether nothing has an image open for writing."""
    with behind.opened(name) as image:
        return not list(image.watchers_list())
