"""The Swift driver: objects in one account, in several, or in each tenant's own."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from store_lib.clients.decoding import decoding, url
from store_lib.driver import (
    CreateOnly,
    Driver,
    Entry,
    Incomplete,
    Reader,
    RequestContext,
    Stat,
)
from store_lib.drivers.swift.client import Container, ObjectRef, SwiftResponse
from store_lib.drivers.swift.location import (
    SwiftLocation,
    container_problem,
    numbered,
    split_key,
)
from store_lib.drivers.swift.options import OPTIONS, SegmentLayout
from store_lib.drivers.swift.reader import SwiftReader, check_manifest, listed_size, missing
from store_lib.drivers.swift.references import WatchedReferences
from store_lib.drivers.swift.segments import (
    Segments,
    complete_objects,
    delete_dynamic,
    delete_static,
    dynamic_manifest,
    incomplete_uploads,
    is_static,
)
from store_lib.drivers.swift.tenancy import MultiTenant, SingleTenant, Tenancy
from store_lib.drivers.swift.writer import SwiftWriter
from store_lib.exceptions import (
    BackendException,
    Forbidden,
    InvalidObjectId,
    NotFound,
    StoreError,
    not_found,
)

R = TypeVar("R")


class SwiftDriver(Driver[SwiftLocation]):
    """Objects in OpenStack Object Storage; see :doc:`/drivers/swift`."""

    schemes = SwiftLocation.schemes
    options = OPTIONS
    location_class = SwiftLocation
    extra = "swift"
    create_only = CreateOnly.CHECKED
    ranges = True
    copies = True

    _tenancy: Tenancy
    _layout: SegmentLayout

    def configure(self) -> None:
        """Check the options and the file of accounts; no connection is made."""
        importlib.import_module("keystoneauth1.session")
        importlib.import_module("swiftclient.utils")
        conf = self.conf
        self._layout = SegmentLayout.of(conf)
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
        watched = WatchedReferences(conf, self.misconfigured)
        known = watched.first
        kind = MultiTenant if conf.swift_store_multi_tenant else SingleTenant
        self._tenancy = kind(self, watched)
        if known.problem is not None:
            raise known.problem  # the driver is set up, and can read objects in other accounts
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
        return container_problem(self._tenancy.container_of(object_id))

    def holds(self, location: SwiftLocation) -> bool:
        return self._tenancy.holds(location)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> SwiftWriter:
        def find(location: SwiftLocation) -> tuple[ObjectRef, SwiftResponse]:
            return self._first(location, context, self._head)

        target = self._tenancy.new(object_id, context)
        self._check_segment(target.ref)
        writer = SwiftWriter(target, nonce, size, self._layout, find)
        writer.prepare()
        return writer

    def read(
        self,
        location: SwiftLocation,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> Reader:
        resumes = self.conf.swift_store_retry_get_count
        return self._first(location, context, lambda ref: SwiftReader(ref, offset, length, resumes))

    def stat(self, location: SwiftLocation, *, context: RequestContext | None) -> Stat:
        ref, head = self._first(location, context, self._head)
        size = head.size if head.size is not None else listed_size(ref, head.headers)
        return Stat(size, head.modified)

    def delete(self, location: SwiftLocation, *, context: RequestContext | None) -> None:
        refs = self._refs(location, context)
        heads = [(ref, ref.itself(newest=len(refs) > 1)) for ref in refs]
        existing = [(ref, head) for ref, head in heads if head is not None]
        if len(existing) > 1:
            raise BackendException(
                f"The URI may mean either of two objects, {refs[0]} and {refs[1]}, and "
                "nothing was deleted. Name one of them: a percent sign that is meant as such is "
                "written as %25 in a URI, and other characters may stand in it as they are."
            )
        if not existing:
            for ref in refs:
                with contextlib.suppress(StoreError):  # this is not what the caller asked for
                    self._tenancy.policy.delete_old(ref.container)
            raise not_found(refs[0])
        [(ref, head)] = existing
        try:
            self._delete_object(ref, head)
        except NotFound:  # another process has deleted it
            raise
        except StoreError:
            # The object may be deleted despite the error.  If it is not, the container is not
            # empty, and the server refuses to delete it.
            with contextlib.suppress(StoreError):
                self._tenancy.policy.delete(ref.container)
            raise
        # An admin tenant may write in the container, but only the owner may delete it.
        with contextlib.suppress(Forbidden):
            self._delete_container(ref.container)

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        for container in self._tenancy.containers(context):
            for item, size in complete_objects(container):
                location = self._tenancy.location(container, item.name)
                if location is not None:
                    yield Entry(item.name, location, size, item.modified)

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        for container in self._tenancy.containers(context):
            yield from incomplete_uploads(container)

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        upload = split_key(incomplete.key)
        if upload is None:
            raise self.unknown_upload(incomplete.key)
        name, object_id, nonce = upload
        container = self._tenancy.own(context).container(name)
        removed = Segments(container, object_id, nonce).remove(incomplete.modified)
        if removed:
            self._delete_container(container)
        return removed

    def set_acls(
        self,
        location: SwiftLocation,
        *,
        public: bool,
        read_tenants: Sequence[str],
        write_tenants: Sequence[str],
        context: RequestContext | None,
    ) -> None:
        tenancy = self._tenancy
        if not isinstance(tenancy, MultiTenant):
            raise self._unsupported("set access lists: its objects share a container")
        headers = tenancy.access_lists(public, read_tenants, write_tenants)

        def post(ref: ObjectRef) -> None:
            ask, path = ref.account.ask, ref.container.path
            if ask("POST", path, 404, headers=headers, body=b"").status == 404:
                raise not_found(ref)

        self._first(location, context, post)

    def url(self, location: SwiftLocation, *, expires: int, context: RequestContext | None) -> str:
        """Return a temporary URL, signed with the key of the account or of the container.

        :raises NotSupported: neither has a key, or the login may not see it
        """
        from swiftclient.utils import generate_temp_url

        ref, _ = self._first(location, context, self._head)
        base = ref.account.storage_url
        path = f"{urlsplit(base).path}/{ref}"
        signed: str = generate_temp_url(
            path, expires, ref.container.url_key(), "GET", digest="sha256"
        )
        return f"{base}{ref.path}?{signed[len(path) + 1 :]}"

    def close(self) -> None:
        self._tenancy.close()

    def _refs(self, location: SwiftLocation, context: RequestContext | None) -> Sequence[ObjectRef]:
        """Return the objects that a URI may name: with its name decoded, and as written."""
        ref = self._tenancy.find(location, context)
        if location.literal is None:
            return [ref]
        container, name = location.literal
        return [ref, ref.account.container(container).object(name)]

    def _first(
        self,
        location: SwiftLocation,
        context: RequestContext | None,
        call: Callable[[ObjectRef], R],
    ) -> R:
        """Call ``call`` with the first object named by the location that exists.

        :raises NotFound: none of them exists
        """
        missing_first: NotFound | None = None
        for ref in self._refs(location, context):
            try:
                return call(ref)
            except NotFound as error:
                missing_first = missing_first or error
        assert missing_first is not None
        raise missing_first

    def _head(self, ref: ObjectRef) -> tuple[ObjectRef, SwiftResponse]:
        head = ref.account.ask("HEAD", ref.path, 404)
        if head.status == 404:
            raise missing(ref, head.headers)
        check_manifest(ref, head)
        return ref, head

    def _check_segment(self, ref: ObjectRef) -> None:
        """Check that the new object would not become a segment of another object.

        :raises InvalidObjectId: the id has the form ``<other>-00001``, in which glance_store names
            segments, and ``<other>`` is a dynamic large object whose prefix is ``<other>-``
        """
        other = numbered(ref.name)
        if other is None:
            return
        head = ref.container.object(other).itself()
        manifest = ref.container.name, f"{other}-"
        if head is not None and dynamic_manifest(head.headers) == manifest:
            raise InvalidObjectId(
                object_id_repr=ascii(ref.name)[:80],
                reason=f"it would become a segment of the large object {ascii(other)[:80]}.",
            )

    def _delete_object(self, ref: ObjectRef, head: SwiftResponse) -> None:
        manifest = dynamic_manifest(head.headers)
        # If it is a symbolic link, only the link is deleted.
        if is_static(head.headers) and head.link is None:
            delete_static(ref)
        elif manifest is not None and head.link is None:
            container, prefix = manifest
            delete_dynamic(ref, ref.account.container(container), prefix)
        elif not ref.delete():
            raise not_found(ref)

    def _delete_container(self, container: Container) -> None:
        self.retry(lambda: self._tenancy.policy.delete(container))
