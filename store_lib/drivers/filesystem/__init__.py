"""The filesystem driver; :class:`FilesystemDriver` is all that others need of it."""

from store_lib.drivers.filesystem.driver import FilesystemDriver

__all__ = ["FilesystemDriver"]
