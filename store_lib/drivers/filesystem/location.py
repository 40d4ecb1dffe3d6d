"""Locations: the URI and path of an object, and the file names of objects and uploads."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import ClassVar, Self

from store_lib.drivers.filesystem.syscalls import Descriptor
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

#: Prefix of all files that are not objects: staged uploads, locks, probes.
PRIVATE_PREFIX = ".store_lib-"
#: Maximum bytes of a file name on the usual file systems.
NAME_MAX = 255

#: Prefixes of the names that libfuse and the NFS client give to an open file that is removed.  The
#: file exists until its last close; these names must not pass for those of objects.
HIDDEN_PREFIXES = (".fuse_hidden", ".nfs")

_LOCK_PREFIX = f"{PRIVATE_PREFIX}lock-"
_CLAIM_PREFIX = f"{PRIVATE_PREFIX}claim-"
_STAGED = re.compile(rf"{re.escape(PRIVATE_PREFIX)}[0-9a-fA-F]{{32}}(?P<kind>[-~])(?P<id>.*)", re.S)
_EXCLUSIVE = re.compile(rf"({re.escape(_LOCK_PREFIX)}|{re.escape(_CLAIM_PREFIX)})[0-9a-f]{{64}}")

_ALLOWED = (
    f"Expected 1 to {NAME_MAX} bytes in UTF-8 without '/' and NUL, neither '.' nor '..', and not "
    f"beginning with {' or '.join(map(repr, (PRIVATE_PREFIX, *HIDDEN_PREFIXES)))}, since it "
    "becomes the name of a file as it stands."
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class FileLocation(Location):
    """``file://`` and an absolute path, verbatim.

    Nothing is percent-encoded or decoded, and ``?`` and ``#`` have no special meaning, because
    services build such URIs from a directory and an id.
    """

    schemes: ClassVar[tuple[str, ...]] = ("file", "filesystem")

    #: The absolute path.
    path: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a ``file://`` or ``filesystem://`` URI.

        :raises BadStoreUri: the path is missing, is relative, does not end with a file name, or is
            impossible
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


@dataclasses.dataclass(slots=True)  # freezing would double the cost of making one
class Place:
    """A file in a data directory, which can be opened without leaving that directory.

    The last component is never resolved: a symbolic link there is not followed.
    """

    #: The absolute path.
    path: str
    #: The data directory, if the file is in a directory below it; ``None`` if directly in one.
    root: str | None = None

    def reached(self) -> contextlib.AbstractContextManager[tuple[str, int | None]]:
        """Return a context manager that yields the name to open and its directory's descriptor.

        The directories on the way are opened one by one, without following symbolic links.  So if
        one was replaced by a link after the path was resolved, this raises an error.  For a file
        directly in a data directory, the path and ``None`` are yielded.

        :raises OSError: a directory on the way is missing or a symbolic link
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


def id_problem(object_id: str) -> str | None:
    """Return why ``object_id`` cannot be the name of an object's file, or ``None`` if it can."""
    if "/" in object_id or "\0" in object_id:
        return f"it contains '/' or NUL. {_ALLOWED}"
    if object_id in ("", ".", ".."):
        return f"it is empty, '.' or '..'. {_ALLOWED}"
    if object_id.startswith(PRIVATE_PREFIX):
        return f"names with this beginning belong to uploads under way. {_ALLOWED}"
    if object_id.startswith(HIDDEN_PREFIXES):
        return (
            "FUSE and NFS give names with this beginning to files that were removed while they "
            f"were open. {_ALLOWED}"
        )
    try:
        length = len(object_id) if object_id.isascii() else _encoded_length(object_id)
    except UnicodeEncodeError:
        return f"it cannot be encoded. {_ALLOWED}"
    if length > NAME_MAX:
        return f"it has {length} bytes. {_ALLOWED}"
    return None


def _encoded_length(object_id: str) -> int:
    object_id.encode()  # raises for a lone surrogate, which a file name can have but no URI
    return len(os.fsencode(object_id))


def staged_name(object_id: str, nonce: str, name_max: int = NAME_MAX) -> str:
    """Return the name of the file in which an upload collects its bytes.

    It contains the id for people and listings.  An id that does not fit is cut, and preceded by
    ``~`` instead of ``-``.
    """
    start = PRIVATE_PREFIX + nonce
    room = name_max - len(start) - 1
    if len(object_id) * 4 <= room:
        return f"{start}-{object_id}"
    encoded = os.fsencode(object_id)
    if len(encoded) <= room:
        return f"{start}-{object_id}"
    return f"{start}~{encoded[:room].decode(errors='ignore')}"


def is_staged(name: str, object_id: str) -> bool:
    """Return whether ``name`` is one of :func:`staged_name` for this id."""
    match = _STAGED.fullmatch(name)
    if match is None:
        return False
    return match["id"] == object_id if match["kind"] == "-" else object_id.startswith(match["id"])


def staged_object_id(name: str) -> str | None:
    """Return the object id in a staged name, or ``None`` if it was cut or is missing."""
    match = _STAGED.fullmatch(name)
    return match["id"] if match and match["kind"] == "-" else None


def lock_name(digest: str) -> str:
    """Return the name of the lock file for publishing an id with this digest."""
    return _LOCK_PREFIX + digest


def claim_name(digest: str) -> str:
    """Return the name of the claim file for publishing an id with this digest."""
    return _CLAIM_PREFIX + digest


def is_private(name: str) -> bool:
    """Return whether ``name`` belongs to a staged upload, lock, claim or probe, not an object."""
    return name.startswith(PRIVATE_PREFIX)


def is_leftover(name: str) -> bool:
    """Return whether ``name`` has the full form of a leftover, which a sweep may remove."""
    return bool(_STAGED.fullmatch(name) or _EXCLUSIVE.fullmatch(name))
