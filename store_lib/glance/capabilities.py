"""A store's capabilities as a bit mask, and the check of them before an operation."""

import enum
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from store_lib.glance import exceptions

F = TypeVar("F", bound=Callable[..., Any])


class BitMasks(enum.IntEnum):
    """Capabilities; a specific one includes the bits of the general one."""

    NONE = 0b00000000
    ALL = 0b11111111
    READ_ACCESS = 0b00000001
    READ_OFFSET = 0b00000011
    READ_CHUNK = 0b00000101
    READ_RANDOM = 0b00000111
    WRITE_ACCESS = 0b00001000
    WRITE_OFFSET = 0b00011000
    WRITE_CHUNK = 0b00101000
    WRITE_RANDOM = 0b00111000
    RW_ACCESS = 0b00001001
    RW_OFFSET = 0b00011011
    RW_CHUNK = 0b00101101
    RW_RANDOM = 0b00111111
    #: A driver object serves any number of calls; all of store_lib's do.
    DRIVER_REUSABLE = 0b01000000


class StoreCapability:
    """Holds the capabilities of one store."""

    _CAPABILITIES: int = BitMasks.NONE

    def __init__(self) -> None:
        self._capabilities = int(type(self)._CAPABILITIES)

    @property
    def capabilities(self) -> int:
        """The bit mask."""
        return self._capabilities

    @staticmethod
    def contains(x: int, y: int) -> bool:
        """Return whether ``x`` has all bits of ``y``."""
        return x & y == y

    def update_capabilities(self) -> None:
        """Do nothing; called after ``configure`` for drivers whose capabilities depend on that."""

    def is_capable(self, *capabilities: int) -> bool:
        """Return whether the store has all of these capabilities."""
        return all(self.contains(self._capabilities, int(bits)) for bits in capabilities)

    def set_capabilities(self, *dynamic_capabilites: int) -> None:
        """Add capabilities."""
        for bits in dynamic_capabilites:
            self._capabilities |= int(bits)

    def unset_capabilities(self, *dynamic_capabilites: int) -> None:
        """Remove capabilities, bit by bit."""
        for bits in dynamic_capabilites:
            self._capabilities &= ~int(bits)


def check(store_op_fun: F) -> F:
    """Decorate ``get``, ``add`` or ``delete`` to raise if the store lacks the capability.

    A range is checked only if ``offset`` and ``chunk_size`` are passed by keyword.
    """
    operation = store_op_fun.__name__.lower()

    @functools.wraps(store_op_fun)
    def checked(store: Any, *args: Any, **kwargs: Any) -> Any:
        if operation in ("add", "delete") and not store.is_capable(BitMasks.WRITE_ACCESS):
            if operation == "add":
                raise exceptions.StoreAddDisabled()
            raise exceptions.StoreDeleteNotSupported()
        if operation == "get":
            offset, size = kwargs.get("offset") or 0, kwargs.get("chunk_size")
            if not store.is_capable(
                BitMasks.READ_ACCESS,
                BitMasks.READ_OFFSET if offset else BitMasks.NONE,
                BitMasks.READ_CHUNK if size else BitMasks.NONE,
            ):
                if offset or size:
                    raise exceptions.StoreRandomGetNotSupported(offset=offset, chunk_size=size)
                raise exceptions.StoreGetNotSupported()
        return store_op_fun(store, *args, **kwargs)

    return checked  # type: ignore[return-value]  # the signature is that of the decorated function
