"""Shows on a terminal how far a transfer has come."""

import os
from types import TracebackType
from typing import NoReturn, Self, TextIO

from tqdm import tqdm


class Bar:
    """A progress bar, to be handed to the library as the ``progress`` of a transfer.

    :param shown: whether to draw at all
    :param stream: the terminal
    :param label: what stands before the bar
    """

    def __init__(self, shown: bool, stream: TextIO, label: str) -> None:
        self._shown = shown
        self._stream = stream
        self._label = label
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Draw ``done`` bytes of ``total``, which is ``None`` when unknown."""
        if not self._shown:
            return
        if self._bar is None:
            tqdm.monitor_interval = 0  # the bar is moved by every chunk and needs no thread
            sized = os.get_terminal_size(self._stream.fileno()).columns > 0
            self._bar = tqdm(
                desc=self._label,
                total=total,
                file=self._stream,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                dynamic_ncols=sized,
                ncols=None if sized else 80,  # a serial line does not know its size
                nrows=None if sized else 24,
            )
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
