"""The server's references of the configured datacenters and datastores, and their space."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from store_lib.driver import Space
from store_lib.drivers.vmware.client import Session
from store_lib.drivers.vmware.options import Datastore
from store_lib.exceptions import (
    BadStoreConfiguration,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
)

if TYPE_CHECKING:
    from store_lib.drivers.vmware.soap import Api


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """The references of a datastore, its datacenter and its browser."""

    reference: Any
    browser: Any


class Inventory:
    """Looks up the server's references by name, and keeps them until they change.

    :param datastores: the configured datastores
    """

    def __init__(self, store_id: str, session: Session, datastores: Sequence[Datastore]) -> None:
        self._store_id = store_id
        self._session = session
        self.datastores = datastores
        self._datacenters: dict[str, Any] = {}
        self._known: dict[Datastore, _Known] = {}

    def check(self) -> None:
        """Look up every configured datastore.

        :raises BadStoreConfiguration: a datastore does not exist; objects on the others can be read
        """
        for datastore in self.datastores:
            try:
                self._find(datastore)
            except NotFound as error:
                raise BadStoreConfiguration(
                    store_name=self._store_id, reason=f"vmware_datastores: {error}", readable=True
                ) from None

    def datacenter(self, datastore: Datastore) -> Any:
        """Return the reference of a datastore's datacenter.

        :raises NotFound: no datacenter has the configured path
        """
        path = datastore.datacenter
        reference = self._datacenters.get(path)
        if reference is None:
            reference = self._session.call(
                f"the datacenter {path}",
                lambda api: api.FindByInventoryPath(
                    api.service_content.searchIndex, inventoryPath=path
                ),
            )
            if reference is None:
                raise NotFound(
                    f"There is no datacenter {path!r} in the server's inventory, or the user may "
                    "not see it."
                )
            self._datacenters[path] = reference
        return reference

    def browser(self, datastore: Datastore) -> Any:
        """Return the reference of a datastore's browser, which lists its files."""
        return self._find(datastore).browser

    def choose(self, size: int | None) -> Datastore:
        """Return the datastore for an object of ``size`` bytes, by weight, then by free space.

        :raises StorageFull: no accessible datastore has space for it
        :raises RemoteServiceUnavailable: no datastore is accessible
        """
        spaces = self.spaces()
        free = {datastore: space.free for datastore, space in spaces.items() if space is not None}
        if not free:
            raise RemoteServiceUnavailable(
                "Expected a datastore that the server can reach, got none of "
                f"{', '.join(datastore.display_name for datastore in spaces)}. Check the hosts and "
                "their storage."
            )
        needed = 1 if size is None else size
        fitting = [datastore for datastore in free if (free[datastore] or 0) >= needed]
        if not fitting:
            wanted = "any" if size is None else f"{size} bytes"
            raise StorageFull(
                f"Expected a datastore with space for {wanted}, got "
                + ", ".join(
                    f"{datastore.display_name} (not accessible)"
                    if space is None
                    else f"{datastore.display_name} ({space.free} free)"
                    for datastore, space in spaces.items()
                )
                + ". Make room, or add a datastore."
            )
        return max(fitting, key=lambda datastore: (datastore.weight, free[datastore]))

    def space(self) -> Space:
        """Return the space of all datastores that can be used now."""
        spaces = [space for space in self.spaces().values() if space is not None]
        return Space(
            sum(space.total or 0 for space in spaces), sum(space.free or 0 for space in spaces)
        )

    def spaces(self) -> dict[Datastore, Space | None]:
        """Return the space of all configured datastores, ``None`` for one that is not accessible.

        A single call of the API gets all of them.
        """
        references = {datastore: self._find(datastore).reference for datastore in self.datastores}
        names = ["summary.capacity", "summary.freeSpace", "summary.accessible"]

        def ask(api: "Api") -> dict[Datastore, Space | None]:
            summaries = api.properties("Datastore", list(references.values()), names)
            spaces: dict[Datastore, Space | None] = {}
            for datastore, reference in references.items():
                summary = summaries.get(api.key(reference), {})
                total, free, accessible = (summary.get(name) for name in names)
                spaces[datastore] = Space(int(total or 0), int(free or 0)) if accessible else None
            return spaces

        try:
            return self._session.call("the free space of the datastores", ask)
        except RemoteServiceUnavailable:
            # A datastore that was removed and created again has another reference.
            self._known.clear()
            self._datacenters.clear()
            raise

    def _find(self, datastore: Datastore) -> _Known:
        known = self._known.get(datastore)
        if known is None:
            datacenter = self.datacenter(datastore)
            known = self._session.call(
                f"the datastores of {datastore.datacenter}",
                lambda api: _named(api, datacenter, datastore.name),
            )
            if known is None:
                raise NotFound(
                    f"There is no datastore {datastore.name!r} in the datacenter "
                    f"{datastore.datacenter!r}, or the user may not see it."
                )
            self._known[datastore] = known
        return known


def _named(api: "Api", datacenter: Any, name: str) -> _Known | None:
    (properties,) = api.properties("Datacenter", [datacenter], ["datastore"]).values()
    references = list(getattr(properties.get("datastore"), "ManagedObjectReference", ()))
    if not references:
        return None
    named = api.properties("Datastore", references, ["name", "browser"])
    for reference in references:
        properties = named.get(api.key(reference), {})
        if properties.get("name") == name:
            return _Known(reference, properties["browser"])
    return None
