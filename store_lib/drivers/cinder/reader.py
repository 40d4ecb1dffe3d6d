"""Reads a volume through an attachment that lasts as long as the reader."""

from collections.abc import Callable, Iterator

from store_lib.display import get_logger
from store_lib.driver import FIRST_PIECE, Reader
from store_lib.drivers.cinder.attachment import Attachment
from store_lib.exceptions import BackendException

_LOG = get_logger(__name__)


class VolumeReader(Reader):
    """An attached volume, of which the first ``size`` bytes are the object.

    :param release: releases the attachment; called once, also where opening fails
    """

    parallel = True

    def __init__(
        self,
        attachment: Attachment,
        size: int,
        offset: int,
        length: int | None,
        release: Callable[[], None],
    ) -> None:
        self.size = size
        # An object's volume is never written again.
        self.validator = attachment.volume_id
        self._attachment = attachment
        self._release: Callable[[], None] | None = release
        self.piece_size = attachment.device.read_size
        end = size if length is None else min(size, offset + length)
        try:
            # Read here, so that its errors come from opening.
            first = self._read(offset, min(end - offset, FIRST_PIECE)) if offset < end else b""
        except BaseException:
            self.close()
            raise
        self.first = self._pieces(offset, end, first)

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        assert self.size is not None
        end = self.size if length is None else min(self.size, offset + length)
        return self._pieces(offset, end)

    def _pieces(self, offset: int, end: int, first: bytes = b"") -> Iterator[bytes]:
        if first:
            offset += len(first)
            hand = [first]
            del first  # a suspended generator must not keep what it has yielded
            yield hand.pop()
        while offset < end:
            if self._release is None:
                raise BackendException("The reader was closed while it was being read.")
            piece = self._read(offset, end - offset)
            offset += len(piece)
            hand = [piece]
            del piece
            yield hand.pop()

    def _read(self, offset: int, most: int) -> bytes:
        return self._attachment.device.read_at(offset, min(most, self.piece_size))

    def close(self) -> None:
        release, self._release = self._release, None
        self.first = None
        if release is not None:
            try:
                release()
            except Exception as error:  # whatever it is, the bytes are read
                _LOG.warning(
                    "Volume %s could not be detached after reading: %s",
                    self._attachment.volume_id,
                    error,
                )

    def __del__(self) -> None:
        self.close()
