"""LocalFile: an output file that appears under its name only when complete."""

import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO


class LocalFile:
    """Context manager that writes a hidden file and renames it if the block succeeds.

    :param path: the final name; a symbolic link is followed
    :param force: whether to replace an existing file
    :raises FileExistsError: the file exists and ``force`` is false
    :raises OSError: the file cannot be written, or is not a regular file
    """

    def __init__(self, path: str, *, force: bool = False) -> None:
        self._target = Path(os.path.realpath(path))
        self._force = force
        self._check()
        name = f".{self._target.name[:200]}.{secrets.token_hex(8)}.part"
        self._part = self._target.with_name(name)

    def _check(self) -> None:
        try:
            existing = self._target.stat()
        except FileNotFoundError:
            return
        if not stat.S_ISREG(existing.st_mode):
            raise OSError(
                f"Expected a regular file or a new name, got {self._target}, which is not a "
                "regular file. To write to it, redirect standard output."
            )
        if not self._force:
            raise FileExistsError(
                f"{self._target} already exists. Choose another name, or overwrite it with --force."
            )

    def __enter__(self) -> BinaryIO:
        try:
            self._stream = open(self._part, "xb")
        except BaseException:  # a signal may arrive after the file was created
            self._part.unlink(missing_ok=True)
            raise
        return self._stream

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
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
                self._check()  # raises, unless the file was deleted meanwhile
                raise
            except OSError:
                self._check()  # without hard links, only a check before the rename is possible
        os.replace(self._part, self._target)
