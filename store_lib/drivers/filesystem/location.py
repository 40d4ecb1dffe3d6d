"""Where an object of the filesystem driver lies: a path, as a file URI and as it is opened."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import ClassVar, Self

from store_lib.drivers.filesystem.descriptor import Descriptor
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class FileLocation(Location):
    """``file://`` and an absolute path as it stands.

    Nothing in it is percent-encoded or decoded, and ``?`` and ``#`` mean themselves, because
    services put such URIs together from a directory and an id by themselves.
    """

    schemes: ClassVar[tuple[str, ...]] = ("file", "filesystem")

    #: The absolute path.
    path: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Take a ``file://`` or ``filesystem://`` URI apart.

        :raises BadStoreUri: the path is missing, relative, without a file name at its end, or
            cannot be one
        """
        if scheme_of(uri) not in cls.schemes:
            raise BadStoreUri("Expected a URI that begins with file://, got %(uri)s", uri=uri)
        path = uri[uri.index("://") + 3 :]
        if not path.startswith("/"):
            raise BadStoreUri("Expected file:// and an absolute path, got %(uri)s", uri=uri)
        if path.rpartition("/")[2] in ("", ".", ".."):
            raise BadStoreUri("Expected a file name at the end of the path, got %(uri)s", uri=uri)
        if "\0" in path:
            raise BadStoreUri(f"Expected a path without NUL, got {uri!a}")
        if not path.isascii():
            try:
                os.fsencode(path)
            except UnicodeEncodeError:
                raise BadStoreUri(f"Expected a path that can be encoded, got {uri!a}") from None
        return cls(path)

    @property
    def uri(self) -> str:
        return f"file://{self.path}"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A file of a data directory, and how to reach it without being led out of there.

    The last component is never resolved: who opens it does not follow a symbolic link.
    """

    #: The absolute path.
    path: str
    #: The data directory that it lies somewhere below; ``None`` where it lies directly in one.
    root: str | None = None

    def reached(self) -> contextlib.AbstractContextManager[tuple[str, int | None]]:
        """Return a block with what to open, and the descriptor of its directory, if it needs one.

        The directories on the way are opened one by one.  Whoever exchanges one of them for a
        symbolic link, after it was looked where the path leads, gets an error.

        :raises OSError: there is no such directory on the way, or it is a symbolic link by now
        """
        if self.root is None:
            return contextlib.nullcontext((self.path, None))
        return self._reached_from(self.root)

    @contextlib.contextmanager
    def _reached_from(self, root: str) -> Iterator[tuple[str, int | None]]:
        *folders, name = self.path[len(root.rstrip("/")) + 1 :].split("/")
        with contextlib.ExitStack() as stack:
            directory = _directory(stack, root, None, 0)
            for folder in folders:
                with contextlib.ExitStack() as above:
                    above.push(stack.pop_all())
                    directory = _directory(stack, folder, directory, os.O_NOFOLLOW)
            yield name, directory


def _directory(stack: contextlib.ExitStack, path: str, start: int | None, flags: int) -> int:
    file = Descriptor()
    stack.callback(file.close)
    file.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | flags, directory=start)
    return stack.enter_context(file)
