"""The configured datacenters and datastores as the server knows them, and the room they have."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from store_lib.driver import Space
from store_lib.drivers.vmware.options import Place
from store_lib.drivers.vmware.session import Session
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
    """A datastore's references."""

    datastore: Any
    browser: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a datastore tells of its room, in bytes."""

    place: Place
    total: int
    free: int
    accessible: bool


class Inventory:
    """Finds what names mean; the server's references are kept, and found again when they change.

    :param places: the configured datastores
    """

    def __init__(self, store_id: str, session: Session, places: Sequence[Place]) -> None:
        self._store_id = store_id
        self._session = session
        self.places = places
        self._datacenters: dict[str, Any] = {}
        self._known: dict[Place, _Known] = {}

    def check(self) -> None:
        """Look every configured datastore up.

        :raises BadStoreConfiguration: one is not there; objects on others can be read
        """
        for place in self.places:
            try:
                self._find(place)
            except NotFound as error:
                raise BadStoreConfiguration(
                    store_name=self._store_id, reason=f"vmware_datastores: {error}", readable=True
                ) from None

    def datacenter(self, place: Place) -> Any:
        """Return the reference of a datastore's datacenter.

        :raises NotFound: there is none of this path
        """
        path = place.datacenter
        found = self._datacenters.get(path)
        if found is None:
            found = self._session.call(
                f"the datacenter {path}",
                lambda api: api.FindByInventoryPath(
                    api.service_content.searchIndex, inventoryPath=path
                ),
            )
            if found is None:
                raise NotFound(
                    f"There is no datacenter {path!r} in the server's inventory, or the user may "
                    "not see it."
                )
            self._datacenters[path] = found
        return found

    def browser(self, place: Place) -> Any:
        """Return the reference of what lists a datastore's files."""
        return self._find(place).browser

    def choose(self, size: int | None) -> Place:
        """Return where an object of ``size`` bytes goes: by weight, then by free space.

        :raises StorageFull: it fits nowhere
        :raises RemoteServiceUnavailable: no datastore is accessible, whatever room it has
        """
        rooms = self.rooms()
        if not any(each.accessible for each in rooms):
            raise RemoteServiceUnavailable(
                "Expected a datastore that the server can reach, got none of "
                f"{', '.join(each.place.shown for each in rooms)}. Check the hosts and their "
                "storage."
            )
        fitting = [
            each for each in rooms if each.accessible and each.free >= (1 if size is None else size)
        ]
        if not fitting:
            wanted = "any" if size is None else f"{size} bytes"
            raise StorageFull(
                f"Expected a datastore with room for {wanted}, got "
                + ", ".join(
                    f"{each.place.shown} ({each.free} free)"
                    if each.accessible
                    else f"{each.place.shown} (not accessible)"
                    for each in rooms
                )
                + ". Make room, or add a datastore."
            )
        return max(fitting, key=lambda each: (each.place.weight, each.free)).place

    def space(self) -> Space:
        """Return the room of all datastores that can be used now."""
        rooms = [each for each in self.rooms() if each.accessible]
        return Space(sum(each.total for each in rooms), sum(each.free for each in rooms))

    def rooms(self) -> list[Room]:
        """Return what every configured datastore tells of its room, asked for in one call."""
        known = {place: self._find(place).datastore for place in self.places}
        names = ["summary.capacity", "summary.freeSpace", "summary.accessible"]

        def ask(api: "Api") -> list[Room]:
            found = api.properties("Datastore", list(known.values()), names)
            rooms = []
            for place, reference in known.items():
                told = found.get(api.key(reference), {})
                total, free, accessible = (told.get(name) for name in names)
                rooms.append(Room(place, int(total or 0), int(free or 0), bool(accessible)))
            return rooms

        try:
            return self._session.call("the free space of the datastores", ask)
        except RemoteServiceUnavailable:
            # Perhaps one was removed and made anew: its name then means another reference.
            self._known.clear()
            self._datacenters.clear()
            raise

    def _find(self, place: Place) -> _Known:
        known = self._known.get(place)
        if known is None:
            datacenter = self.datacenter(place)
            known = self._session.call(
                f"the datastores of {place.datacenter}",
                lambda api: _named(api, datacenter, place.datastore),
            )
            if known is None:
                raise NotFound(
                    f"There is no datastore {place.datastore!r} in the datacenter "
                    f"{place.datacenter!r}, or the user may not see it."
                )
            self._known[place] = known
        return known


def _named(api: "Api", datacenter: Any, name: str) -> _Known | None:
    (found,) = api.properties("Datacenter", [datacenter], ["datastore"]).values()
    references = list(getattr(found.get("datastore"), "ManagedObjectReference", ()))
    if not references:
        return None
    told = api.properties("Datastore", references, ["name", "browser"])
    for each in references:
        properties = told.get(api.key(each), {})
        if properties.get("name") == name:
            return _Known(each, properties["browser"])
    return None
