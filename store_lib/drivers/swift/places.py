"""Where an object lies, as one login sees it; and containers that are made and dropped."""

import dataclasses
from collections.abc import Mapping

from store_lib.clients.response_headers import parse_http_date
from store_lib.drivers.swift.account import Account, path_of
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.exceptions import BackendException, ErrorStatus

#: Seconds within which an add that has made a container has put something into it.
_YOUNG = 3600


class ContainerLost(BackendException):
    """An object's own container was removed under an add, by a delete of the same id."""

    message = "The container %(container)s was removed during the upload. Add the object again."
    default_status = ErrorStatus.TEMPORARY


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """An object's place in an account."""

    account: Account
    container: str
    name: str
    location: SwiftLocation

    @property
    def path(self) -> str:
        """The object's path below the account."""
        return path_of(self.container, self.name)

    @property
    def shown(self) -> str:
        """Container and object, for messages."""
        return f"{self.container}/{self.name}"

    def __str__(self) -> str:
        return self.shown


@dataclasses.dataclass(frozen=True, slots=True)
class Containers:
    """How containers come and go."""

    #: Whether one that is missing may be made.
    may_make: bool
    #: Sent when one is made: its access lists.
    headers: Mapping[str, str]
    #: Whether each object has one for itself, which goes with it.
    own: bool
    #: URLs of containers that were there, and are not looked for at every add.
    _seen: set[str] = dataclasses.field(default_factory=set)

    def need(self, account: Account, container: str) -> bool:
        """Make a container unless it is there; say whether it was made.

        :raises BackendException: it is missing, and must not be made
        """
        path = path_of(container)
        url = account.storage_url + path
        if url in self._seen:
            return False
        missing = account.head(path) is None
        if missing:
            self.make(account, container)
        if not self.own:
            self._seen.add(url)
        return missing

    def make(self, account: Account, container: str) -> None:
        """Make a container that is missing.

        :raises BackendException: it must not be made
        """
        if not self.may_make:
            raise BackendException(
                f"Expected the container {container} at {account.server.base}, there is none. "
                "Make it, or set swift_store_create_container_on_put."
            )
        account.ask("PUT", path_of(container), headers=self.headers, body=b"")

    def drop(self, account: Account, container: str) -> None:
        """Remove the container of an object that is gone, where it had one for itself."""
        if self.own:
            # 409: there is something in it.
            account.ask("DELETE", path_of(container), 404, 409)

    def drop_old(self, account: Account, container: str) -> None:
        """Remove what a delete that came no further has left of an object that is not there.

        One that was made lately may be that of an add whose first segment is on its way.  It is
        the server's clock that tells, by both times.
        """
        if not self.own:
            return
        head = account.head(path_of(container))
        if head is None:
            return
        now = parse_http_date(head.headers.get("Date"))
        if now is not None and head.modified is not None and now - head.modified > _YOUNG:
            self.drop(account, container)
