"""A local file that appears under its name only when it is whole."""

import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO


class LocalFile:
    """The file that ``get`` writes: a hidden name beside the final one until the block ends well.

    :param path: the final name; a symbolic link is followed
    :param force: whether a file that is there may be replaced
    :raises FileExistsError: it is there, and ``force`` was not given
    :raises OSError: it cannot be written, or is no regular file
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        self._target = Path(os.path.realpath(path))
        self._force = force
        self._check()
        name = f".{self._target.name[:200]}.{secrets.token_hex(8)}.part"
        self._part = self._target.with_name(name)

    def _check(self) -> None:
        try:
            found = self._target.stat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise OSError(
                f"Expected a regular file or a new name, got {self._target}, which is neither. "
                "To write there, redirect the standard output."
            )
        if not self._force:
            raise FileExistsError(
                f"{self._target} exists already. Choose another name, or overwrite it with --force."
            )

    def __enter__(self) -> BinaryIO:
        try:
            self._stream = open(self._part, "xb")
        except BaseException:  # a signal may come when the file is there already
            self._part.unlink(missing_ok=True)
            raise
        return self._stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._stream:
                if error is None:
                    self._stream.flush()
                    os.fsync(self._stream.fileno())
            if error is None:
                self._publish()
        finally:
            self._part.unlink(missing_ok=True)

    def _publish(self) -> None:
        if not self._force:
            try:
                os.link(self._part, self._target)
                return
            except FileExistsError:
                self._check()  # says so, unless it has just gone again
                raise
            except OSError:
                self._check()  # no hard links here: the check has to do
        os.replace(self._part, self._target)
