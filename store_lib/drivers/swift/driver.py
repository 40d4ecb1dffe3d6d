"""The Swift driver: objects in one account, in several, or in each tenant's own."""

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from store_lib.clients.decoding import decoding, url
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, Reader, Stat
from store_lib.drivers.swift import names, references
from store_lib.drivers.swift.account import Account, Answer, path_of
from store_lib.drivers.swift.leftovers import leftovers, remove
from store_lib.drivers.swift.listings import entries
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.drivers.swift.manifests import (
    delete_dynamic,
    delete_static,
    dynamic_of,
    is_static,
)
from store_lib.drivers.swift.options import MEGABYTE, OPTIONS
from store_lib.drivers.swift.places import Place
from store_lib.drivers.swift.reader import SwiftReader, check_manifest, listed_size, not_there
from store_lib.drivers.swift.temporary_urls import temporary_url
from store_lib.drivers.swift.tenancy import MultiTenant, SingleTenant, Tenancy
from store_lib.drivers.swift.writer import Plan, SwiftWriter
from store_lib.exceptions import (
    BackendException,
    BadStoreUri,
    DriverLoadFailure,
    Duplicate,
    Forbidden,
    Invalid,
    InvalidObjectId,
    NotFound,
    StoreError,
)
from store_lib.location import Location

R = TypeVar("R")


class SwiftDriver(Driver[SwiftLocation]):
    """Objects in OpenStack Object Storage; see :doc:`/drivers/swift`."""

    schemes = SwiftLocation.schemes
    options = OPTIONS
    location_class = SwiftLocation
    create_only = CreateOnly.CHECKED
    ranges = True

    _tenancy: Tenancy
    _plan: Plan
    #: URLs of objects whose deletion has begun and not ended well.
    _deleting: set[str]

    def configure(self) -> None:
        """Check the options and the file of accounts; nothing is connected to."""
        self._deleting = set()
        _need_clients()
        conf = self.conf
        self._plan = Plan(
            cut_from=conf.swift_store_large_object_size * MEGABYTE,
            segment=conf.swift_store_large_object_chunk_size * MEGABYTE,
            at_once=conf.swift_store_segment_threads,
            entries=conf.swift_store_manifest_entries,
            dynamic=conf.swift_store_manifest == "dynamic",
        )
        if not conf.swift_store_container or "/" in conf.swift_store_container:
            raise self.misconfigured("Expected a name without '/' in swift_store_container.")
        if conf.swift_store_endpoint:
            with decoding(
                "the storage URL of an account in swift_store_endpoint",
                raising=self.misconfigured,
                advice="A login has options of its own.",
            ):
                url(conf.swift_store_endpoint)
        if conf.swift_store_multi_tenant and conf.swift_store_config_file:
            raise self.misconfigured(
                "swift_store_config_file is for single-tenant stores, and swift_store_multi_tenant "
                "is set. Unset one of them."
            )
        watched = references.Watched(conf, self.store_id)
        known = watched.first
        kind = MultiTenant if conf.swift_store_multi_tenant else SingleTenant
        self._tenancy = kind(self.store_id, conf, self.run_concurrently, self.retry, watched)
        if known.problem is not None:
            raise known.problem  # from here on other accounts can be read
        if not conf.swift_store_multi_tenant:
            self.disabled = frozenset({"set_acls"})
            if known.default is None:
                raise self.misconfigured(
                    "Expected an account: set swift_store_config_file, or swift_store_auth_address "
                    "with swift_store_user and swift_store_key."
                )

    @property
    def url_prefix(self) -> str:
        return self._tenancy.url_prefix

    def id_problem(self, object_id: str) -> str | None:
        return names.refusal(self._tenancy.container_of(object_id))

    def holds(self, location: Location) -> bool:
        return isinstance(location, SwiftLocation) and self._tenancy.holds(location)

    def _find(self, location: Location, context: Any) -> list[Place]:
        """Return where the object may be: as the URI is decoded, and as it stands."""
        if not isinstance(location, SwiftLocation):
            raise BadStoreUri("Expected a Swift URI, got %(uri)s", uri=location.uri)
        place = self._tenancy.find(location, context)
        if location.literal is None:
            return [place]
        container, name = location.literal
        return [place, dataclasses.replace(place, container=container, name=name)]

    def _first(self, location: Location, context: Any, call: Callable[[Place], R]) -> R:
        """Make a call for the first place where the object is."""
        missing: NotFound | None = None
        for place in self._find(location, context):
            try:
                return call(place)
            except NotFound as error:
                missing = missing or error
        assert missing is not None
        raise missing

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> SwiftWriter:
        tenancy = self._tenancy
        place = tenancy.new(object_id, context)
        self._check_segment(place)
        made = False
        # One short request tells of itself what it meets.
        if size is None or size > self._plan.chunk or tenancy.containers.own:
            made = tenancy.containers.need(place.account, place.container)
            # In a container that was missing there is no object.
            if not made and place.account.itself("HEAD", place.path, newest=True) is not None:
                raise Duplicate(image=object_id)
        return SwiftWriter(
            place,
            tenancy.containers,
            self._plan,
            nonce,
            size,
            made_container=made,
            lasting=tenancy.lasting(place),
        )

    def _check_segment(self, place: Place) -> None:
        """Refuse an id that would make an object a segment of another, as glance_store lays it out.

        :raises InvalidObjectId: the id is of the form ``<other>-00001``, and ``<other>`` is a
            dynamic large object of what begins with ``<other>-``
        """
        other = names.numbered(place.name)
        if other is None:
            return
        head = place.account.itself("HEAD", path_of(place.container, other))
        if head is not None and dynamic_of(head.headers) == (place.container, f"{other}-"):
            raise InvalidObjectId(
                object_id_repr=ascii(place.name)[:80],
                reason=f"it would become a segment of the large object {ascii(other)[:80]}.",
            )

    def read(self, location: Location, offset: int, length: int | None, *, context: Any) -> Reader:
        resumes = self.conf.swift_store_retry_get_count
        return self._first(
            location, context, lambda place: SwiftReader(place, offset, length, resumes)
        )

    def stat(self, location: Location, *, context: Any) -> Stat:
        place, head = self._first(location, context, self._head)
        size = head.size if head.size is not None else listed_size(place, head.headers)
        return Stat(size, head.modified)

    def _head(self, place: Place) -> tuple[Place, Answer]:
        head = place.account.ask("HEAD", place.path, 404)
        if head.status == 404:
            raise not_there(place, head.headers)
        check_manifest(place, head)
        return place, head

    def delete(self, location: Location, *, context: Any) -> None:
        places = self._find(location, context)
        newest = len(places) > 1
        heads = [(each, each.account.itself("HEAD", each.path, newest=newest)) for each in places]
        found = [(place, head) for place, head in heads if head is not None]
        if len(found) > 1:
            raise BackendException(
                f"The URI may mean either of two objects, {found[0][0]} and {found[1][0]}, and "
                "nothing was deleted. Name one of them: a percent sign that is meant as such is "
                "written as %25 in a URI, and other characters may stand in it as they are."
            )
        if not found:
            for place in places:
                self._finish_delete(place, place.account.storage_url + place.path)
            raise NotFound(image=places[0].shown)
        [(place, head)] = found
        account = place.account
        url = account.storage_url + place.path
        self._deleting.add(url)
        try:
            self._remove(place, head)
        except NotFound:  # another one has removed it
            self._deleting.discard(url)
            raise
        with contextlib.suppress(Forbidden):  # admin tenants write in it, and it is its owner's
            self._drop(account, place.container)
        self._deleting.discard(url)

    def _drop(self, account: Account, container: str) -> None:
        self.retry(lambda: self._tenancy.containers.drop(account, container))

    def _remove(self, place: Place, head: Answer) -> None:
        account = place.account
        manifest = dynamic_of(head.headers)
        # Of a symbolic link only the link goes.
        if is_static(head.headers) and head.link is None:
            delete_static(account, place.container, place.name)
        elif manifest is not None and head.link is None:
            delete_dynamic(account, place.container, place.name, *manifest)
        elif not account.delete(place.path):
            raise NotFound(image=place.shown)

    def _finish_delete(self, place: Place, url: str) -> None:
        """Remove the container of an object that is not there, if that was deleted.

        By this process, whose request for that failed; or so long ago that no add can be about
        to put something into it.
        """
        if url in self._deleting:
            with contextlib.suppress(Forbidden):
                self._drop(place.account, place.container)
            self._deleting.discard(url)
            return
        with contextlib.suppress(StoreError):  # nobody has asked for it
            self._tenancy.containers.drop_old(place.account, place.container)

    def list(self, *, context: Any) -> Iterator[Entry]:
        account = self._tenancy.own(context)
        for container in self._tenancy.known_containers(account):
            for entry, size in entries(account, container):
                location = self._tenancy.location(account, container, entry.name)
                if location is not None:
                    yield Entry(entry.name, location, size, entry.modified)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        account = self._tenancy.own(context)
        for container in self._tenancy.known_containers(account):
            yield from leftovers(account, container)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        upload = names.split_key(incomplete.key)
        if upload is None:
            raise Invalid(
                f"Expected the key of a leftover of store {self.store_id}, got "
                f"{incomplete.key!a}. Take it from a listing of this store."
            )
        account = self._tenancy.own(context)
        removed = remove(account, *upload, incomplete.modified)
        if removed:
            self._drop(account, upload[0])
        return removed

    def copy(
        self, location: Location, object_id: str, *, nonce: str, context: Any
    ) -> SwiftLocation:
        origin, head = self._first(location, context, self._head)
        with self.create(object_id, None, nonce=nonce, context=context) as writer:
            return writer.fill_from(origin, head)

    def set_acls(
        self,
        location: Location,
        *,
        public: bool,
        read_tenants: Sequence[str],
        write_tenants: Sequence[str],
        context: Any,
    ) -> None:
        tenancy = self._tenancy
        if not isinstance(tenancy, MultiTenant):
            raise self._unsupported("set access lists: its objects share a container")
        # Any user with a login; ".r:*" would be everybody, logged in or not.
        readers = ["*:*"] if public else [_granted(each) for each in read_tenants]
        writers = [_granted(each) for each in write_tenants]
        headers = {
            "X-Container-Read": _access_list([*readers, *tenancy.admins]),
            "X-Container-Write": _access_list([*writers, *tenancy.admins]),
        }

        def post(place: Place) -> None:
            path = path_of(place.container)
            if place.account.ask("POST", path, 404, headers=headers, body=b"").status == 404:
                raise NotFound(image=place.shown)

        self._first(location, context, post)

    def url(self, location: Location, *, expires: int, context: Any) -> str:
        place, _ = self._first(location, context, self._head)
        return temporary_url(place, expires)

    def close(self) -> None:
        self._tenancy.close()


def _granted(tenant: str) -> str:
    """Return all users of a tenant, as Swift writes them in an access list.

    :raises Invalid: in a list it would stand for others
    """
    if not re.fullmatch(r"[^\s\x00-\x1f,:.*][^\s\x00-\x1f,:*]*", tenant):
        raise Invalid(
            f"Expected the id or the name of a tenant, without blanks, commas, colons, asterisks "
            f"or a full stop at its start, got {ascii(tenant)[:80]}."
        )
    return f"{tenant}:*"


def _access_list(entries: Sequence[str]) -> str:
    # As the header's bytes go out: in UTF-8.
    return ",".join(entries).encode().decode("latin-1")


def _need_clients() -> None:
    """Import the client libraries.

    :raises DriverLoadFailure: one is not installed
    """
    try:
        importlib.import_module("keystoneauth1.session")
        importlib.import_module("swiftclient.client")
    except ImportError as error:
        raise DriverLoadFailure(
            driver_name="swift",
            reason=f"{error}. Install what it needs: pip install store_lib[swift]",
        ) from error
