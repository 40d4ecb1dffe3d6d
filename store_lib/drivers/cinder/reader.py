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
        wanted = size - offset if length is None else min(length, size - offset)
        #: Offset and bytes of the first piece, read here so that its errors come from opening.
        self._first: tuple[int, bytes] | None = None
        if wanted > 0:
            try:
                self._first = (offset, self._read(offset, min(wanted, FIRST_PIECE)))
            except BaseException:
                self.close()
                raise

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        assert self.size is not None
        end = self.size if length is None else min(self.size, offset + length)
        first, self._first = self._first, None
        if first is not None and first[0] == offset and len(first[1]) <= end - offset:
            offset += len(first[1])
            hand = [first[1]]
            del first
            yield hand.pop()
        while offset < end:
            if self._release is None:
                raise BackendException("The reader was closed while it was being read.")
            piece = self._read(offset, end - offset)
            offset += len(piece)
            hand = [piece]
            del piece  # a suspended generator must not hold what it yielded
            yield hand.pop()

    def _read(self, offset: int, most: int) -> bytes:
        return self._attachment.device.read_at(offset, min(most, self.piece_size))

    def close(self) -> None:
        release, self._release = self._release, None
        self._first = None
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
