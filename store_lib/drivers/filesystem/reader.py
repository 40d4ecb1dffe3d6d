"""Reading an object: ranges of an open file, which may be read concurrently."""

import contextlib
import os
import stat
from collections.abc import Iterator

from store_lib.driver import Reader
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import Action, translate
from store_lib.drivers.filesystem.location import Place
from store_lib.drivers.filesystem.syscalls import Descriptor
from store_lib.exceptions import InvalidRange, ObjectChanged, not_found

#: With O_NONBLOCK, opening a pipe does not wait for a writer.  It has no effect on a file.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
#: For a range of at least this many bytes, the kernel is asked to read further ahead.
_LARGE = 8 * 1024 * 1024


def open_object(place: Place) -> tuple[Descriptor, os.stat_result]:
    """Open a file and return its descriptor and status.

    :raises NotFound: there is no file
    :raises Forbidden: the file is a symbolic link, or may not be read
    """
    file = Descriptor()
    try:
        with place.reached() as (name, directory):
            file.open(name, _FLAGS, directory=directory)
        with file as fd:
            status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise not_found(place.path)
        return file, status
    except OSError as error:
        file.close()
        raise translate(error, Action.READ, place.path) from error
    except BaseException:
        file.close()
        raise


class FileReader(Reader):
    """Reads an open file, even if the file has been deleted since it was opened.

    :raises InvalidRange: ``offset`` is past the end
    """

    parallel = True
    exact = True

    def __init__(self, place: Place, offset: int, length: int | None, chunk_size: int) -> None:
        self._file, status = open_object(place)
        self._path = place.path
        self.piece_size = chunk_size
        self._status = status
        self.size: int = status.st_size
        self.validator = (
            f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
        )
        if offset > self.size:
            self.close()
            raise InvalidRange(size=self.size, offset=offset, length=length)
        expected = self.size - offset if length is None else min(length, self.size - offset)
        if expected > _LARGE:
            with contextlib.suppress(OSError), self._file as fd:  # only a hint, which may fail
                os.posix_fadvise(fd, offset, expected, os.POSIX_FADV_SEQUENTIAL)

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        if offset > self.size:
            raise InvalidRange(size=self.size, offset=offset, length=length)
        end = self.size if length is None else min(self.size, offset + length)
        return self._pieces(offset, end)

    def _pieces(self, position: int, end: int) -> Iterator[bytes]:
        while position < end:
            try:
                with self._file as fd:
                    piece = os.pread(fd, min(self.piece_size, end - position), position)
                    last = position + len(piece) >= end
                    changed = last and not syscalls.unchanged(self._status, os.fstat(fd))
            except OSError as error:
                raise translate(error, Action.READ, self._path) from error
            if not piece:
                raise ObjectChanged(
                    f"Expected {self.size} bytes in {self._path}, got only {position}: it was "
                    "cut while it was being read. Find out what writes there, and read it again."
                )
            if changed:
                raise ObjectChanged(
                    f"Expected {self._path} to stay as it is while it is read, but something wrote "
                    "to it. Find out what writes there, and read it again."
                )
            position += len(piece)
            handed_over = [piece]
            del piece
            yield handed_over.pop()  # a suspended generator must not keep what it has yielded

    def fileno(self) -> int | None:
        if self._file.closing:
            return None
        with self._file as fd:
            os.set_blocking(fd, True)  # for io_uring, on which O_NONBLOCK has an effect
            return fd

    def close(self) -> None:
        self._file.close()
