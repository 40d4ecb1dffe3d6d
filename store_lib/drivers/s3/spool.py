"""A part of unknown length, kept in a file until its end is seen: S3 asks for the length first."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO

from store_lib.driver import Body
from store_lib.exceptions import BackendException


@contextlib.contextmanager
def spooled(body: Body) -> Iterator[tuple[IO[bytes], int]]:
    """Copy ``body`` to a temporary file; give the file, at its start, and its size.

    :raises BackendException: there is no room for it
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(prefix="store_lib-"))
            for piece in body:
                file.write(piece)
            size = file.tell()
            file.seek(0)
        except OSError as error:
            raise BackendException(
                f"A part that memory has no room for could not be kept in {tempfile.gettempdir()}: "
                f"{error.strerror}. Name a directory with room in TMPDIR, raise "
                "transfer_memory_limit, or declare the object's size."
            ) from error
        yield file, size
