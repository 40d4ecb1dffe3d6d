"""The filesystem driver; other packages use only :class:`FilesystemDriver`."""

from store_lib.drivers.filesystem.driver import FilesystemDriver

__all__ = ["FilesystemDriver"]
