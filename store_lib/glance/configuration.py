"""What a service's ConfigOpts says of the stores that the Glance interface asks for."""

from collections.abc import Collection, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.config import Configuration, StoreSection

#: Where the files of a reserved store lie unless the operator says otherwise.
RESERVED_DATADIR = "/var/lib/glance/{}"

_DATADIRS = ("filesystem_store_datadir", "filesystem_store_datadirs")


class GlanceConfiguration(Configuration):
    """A service's configuration, for the sections that it asks for itself.

    :param reserved: ids of the stores that the service keeps for itself; it reads their
        directory from the configuration too, so ``[backend_defaults]`` does not move them
    """

    def __init__(
        self,
        caller: cfg.ConfigOpts,
        sections: Sequence[StoreSection],
        reserved: Collection[str] = (),
    ) -> None:
        self._sections = list(sections)
        self._reserved = frozenset(reserved)
        super().__init__(caller)

    def sections(self) -> list[StoreSection]:
        return self._sections

    def value(self, name: str, section: str | None) -> tuple[Any, bool]:
        if section == "glance_store" and name in ("default_backend", "default_store"):
            return None, False  # the default may be a store that is none of ours
        value, given = super().value(name, section)
        return value, given or (section in self._reserved and name in _DATADIRS)
