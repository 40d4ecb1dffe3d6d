"""Where an object of the filesystem driver lies: an absolute path, written as a file URI."""

import dataclasses
import os
from typing import ClassVar, Self

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
