"""The client of Cinder: logins, requests, and the checks of every response."""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cinderclient import client as cinderclient
from cinderclient.exceptions import ClientException
from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1.adapter import Adapter
from keystoneauth1.token_endpoint import Token

from store_lib.clients.decoding import decoding, malformed, text, url
from store_lib.clients.hosts import origin_of
from store_lib.clients.keystone import ConnectionSettings, ContextLogin, Credentials, KeystoneLogin
from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.polling import FIRST_INTERVAL, Clock, poll
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import parse_http_date, retry_after
from store_lib.clients.sessions import open_session
from store_lib.clients.tls import Tls
from store_lib.driver import Repeater, RequestContext, once
from store_lib.drivers.cinder.errors import error_for_response, is_invalid_state, transport_error
from store_lib.drivers.cinder.volume import HEARTBEAT_TIMEOUT, Volume, VolumeAttachment
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    TimeoutError,
    not_found,
)
from store_lib.options import StoreOptions

#: The first microversion that has the access mode of attachments.
MICROVERSION = "3.54"

#: States in which Cinder is working on a volume.
UNSTABLE = frozenset({"creating", "extending", "attaching", "detaching", "reserved", "maintenance"})

#: States in which a volume can be attached at once, or after another client's change has ended.
ATTACHABLE = frozenset({"available", "in-use", "reserved", "attaching", "detaching"})

#: The number of volumes to ask for in one page of a listing.
_PAGE = 500
#: The longest pause in seconds between two attempts to attach a volume.  It is short, as several
#: readers may compete for a volume.
_TURN = 0.5
#: How often a listing is begun, if the last volume of a page is deleted during it.
_RESTARTS = 10

#: cinderclient's logger, not at DEBUG: it would log bodies, which hold the passwords of targets.
_WIRE = logging.getLogger(f"{__name__}.wire")
_WIRE.setLevel(logging.INFO)

#: Service types of interfaces that Cinder no longer has.
_FORMER_SERVICES = frozenset({"volume", "volumev2"})

#: The documented errors of cinderclient and keystoneauth.
_CLIENT_ERRORS = (ClientException, keystone_errors.ClientException)


class CinderClients:
    """Creates the clients of one store, with the service's own login or a request's context.

    :param retry: repeats a request after a temporary error
    :raises BadStoreConfiguration: an option is malformed, or the file of authorities is unusable
    """

    def __init__(self, store_id: str, options: StoreOptions, retry: Repeater = once) -> None:
        self._options = options
        self._retry = retry
        parts = options.cinder_catalog_info.split(":")
        if len(parts) != 3 or not parts[0] or not parts[2]:
            raise BadStoreConfiguration(
                store_name=store_id,
                reason="cinder_catalog_info: expected service_type:service_name:interface, got "
                f"{options.cinder_catalog_info!r}",
            )
        address = options.cinder_store_auth_address
        if address:
            with decoding(
                "the URL of Keystone in cinder_store_auth_address",
                raising=lambda reason: BadStoreConfiguration(
                    store_name=store_id, reason=reason, store=store_id
                ),
                advice="A login has options of its own.",
            ):
                url(address)
        self._service = "volumev3" if parts[0] in _FORMER_SERVICES else parts[0]
        self._name, self._interface = parts[1] or None, parts[2]
        # Checks the file: keystoneauth would raise its own errors for a bad one.
        Tls(
            store_id,
            options,
            authorities="cinder_ca_certificates_file",
            insecure="cinder_api_insecure",
            peers="Keystone and Cinder",
        )
        how = ConnectionSettings(
            verify=options.cinder_ca_certificates_file or not options.cinder_api_insecure,
            timeout=options.cinder_http_timeout,
        )
        credentials = _credentials(options)
        self._login = None if credentials is None else KeystoneLogin(credentials, how)
        self._session: PerProcess[Any] = PerProcess(
            lambda: open_session(verify=how.verify, timeout=how.timeout)
        )

    @property
    def has_login(self) -> bool:
        """Whether the service has its own login, so that no request context is needed."""
        return self._login is not None

    def get(self, context: RequestContext | None) -> "Cinder":
        """Return a client with the service's login, or with the context's token.

        :raises BadStoreConfiguration: there is neither a login nor a context, or the catalog has no
            URL of Cinder
        :raises AuthorizationFailure: the login was refused
        """
        if self._login is not None:
            session, auth = self._login.session, None
            endpoint = self._endpoint(self._login, None)
        else:
            login = ContextLogin(_required(context))
            endpoint = self._endpoint(login, context)
            session, auth = self._session.get(), Token(endpoint, login.token())
        return Cinder(
            session,
            auth,
            endpoint,
            timeout=self._options.cinder_state_transition_timeout,
            retry=self._retry,
        )

    def _endpoint(self, login: KeystoneLogin | ContextLogin, context: Any) -> str:
        template = self._options.cinder_endpoint_template
        if not template:
            return login.endpoint(
                self._service, self._interface, self._options.cinder_os_region_name, self._name
            )
        with decoding(
            "a URL of Cinder when cinder_endpoint_template is filled in",
            raising=BadStoreConfiguration,
            advice="It may name values of the request context, as in %(tenant)s.",
        ):
            return url(template % self._template_values(login, context))

    @staticmethod
    def _template_values(login: KeystoneLogin | ContextLogin, context: Any) -> Mapping[str, Any]:
        if isinstance(login, KeystoneLogin):
            project = login.project_id()
            return {"tenant": project, "project_id": project, "tenant_id": project}
        values = context.to_dict() if hasattr(context, "to_dict") else vars(context)
        if not hasattr(context, "project_id"):
            raise BadStoreConfiguration(
                "Expected a request context with a project_id for cinder_endpoint_template, got "
                "one without."
            )
        return {"tenant": context.project_id, "tenant_id": context.project_id, **values}

    def project(self, context: RequestContext | None) -> str:
        """Return the id of the project that owns a new object: the context's, or the login's."""
        project = getattr(context, "project_id", None)
        if not project and self._login is not None:
            project = self._login.project_id()
        return str(project or "")

    def close(self) -> None:
        """Close this process's connections."""
        if self._login is not None:
            self._login.close()
        session = self._session.take()
        if session is not None:
            session.session.close()


def _credentials(options: StoreOptions) -> Credentials | None:
    """Return the service's own login; ``None`` unless its options are complete."""
    address = options.cinder_store_auth_address
    key = options.cinder_store_application_credential_id
    secret = options.cinder_store_application_credential_secret
    if address and key and secret:
        return Credentials(
            auth_url=address,
            application_credential_id=key,
            application_credential_secret=secret,
        )
    name, password = options.cinder_store_user_name, options.cinder_store_password
    project = options.cinder_store_project_name
    if address and name and password and project:
        return Credentials(
            auth_url=address,
            username=name,
            password=password,
            project_name=project,
            user_domain_name=options.cinder_store_user_domain_name,
            project_domain_name=options.cinder_store_project_domain_name,
        )
    return None


def _required(context: RequestContext | None) -> RequestContext:
    if context is None:
        raise BadStoreConfiguration(
            "Expected a request context, as the service has no login of its own for Cinder; got "
            "none. Set cinder_store_auth_address, cinder_store_user_name, cinder_store_password "
            "and cinder_store_project_name, or pass the context."
        )
    return context


class CinderAdapter(Adapter):
    """Checks the targets of requests, and reads headers of responses.  Thread-safe.

    :param session: keystoneauth's session
    """

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._thread = threading.local()
        #: The server's time, and the value of this machine's monotonic clock at that moment.
        self._server_time: tuple[float, float] | None = None

    def request(self, url: str, method: str, **options: Any) -> Any:
        """Send a request to Cinder; refuse other servers, which must not get the token.

        :raises BackendException: the response is a redirect, or the next page of a listing is on
            another server
        """
        self._thread.retry_after = None
        endpoint = options.get("endpoint_override") or url
        if "://" in url and _server_of(url) != _server_of(endpoint):
            raise BackendException(
                f"Cinder at {origin_of(endpoint)} says that a list goes on at {origin_of(url)}, "
                "which the token is not sent to. Set public_endpoint in Cinder's configuration to "
                "the address by which it is asked."
            )
        response = super().request(url, method, **{**options, "redirect": False})
        if 300 <= response.status_code < 400:
            raise BackendException(
                f"Expected Cinder's answer, got a redirect ({response.status_code}) to "
                f"{origin_of(response.headers.get('Location', ''))}, which the token is not sent "
                "to. Give Cinder's own address in the catalog or in cinder_endpoint_template."
            )
        date = parse_http_date(response.headers.get("Date"))
        if date is not None:
            self._server_time = date, time.monotonic()
        self._thread.retry_after = retry_after(response.headers)
        # Because of this header cinderclient would wait and repeat, and it fails at some values.
        response.headers.pop("Retry-After", None)
        return response

    def now(self) -> float | None:
        """Return the time by the server's clock; ``None`` before the first response.

        The Date header has whole seconds, so the result may be up to a second early.
        """
        if self._server_time is None:
            return None
        date, then = self._server_time
        return date + time.monotonic() - then

    def call(self, action: str) -> LibraryCall:
        """Return a context manager that turns errors into the library's.

        :param action: what the request is to do, such as ``"create a volume"``
        """
        self._thread.retry_after = None

        def translate(error: Exception) -> StoreError:
            if isinstance(error, ClientException):
                return error_for_response(error, action, self._thread.retry_after)
            if isinstance(error, keystone_errors.ClientException):
                return transport_error(error, action)
            return malformed(
                error,
                f"an answer of Cinder's, which was asked to {action}",
                raising=RemoteServiceUnavailable,
                advice="Check that cinder_catalog_info or cinder_endpoint_template leads to Cinder "
                "and not to a proxy's error page.",
            )

        return LibraryCall(translate, kept=_CLIENT_ERRORS)


def _server_of(url: str) -> tuple[str, str | None, int | None] | None:
    """Return the scheme, host and port of a URL; ``None`` if the URL is malformed."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None


class Cinder:
    """A client of Cinder for one user.  Thread-safe.

    :param session: keystoneauth's session
    :param auth: a login to use instead of the session's; ``None`` for the session's
    :param endpoint: Cinder's URL for the project
    :param timeout: seconds to wait for a volume's state
    :param retry: repeats a request after a temporary error
    """

    def __init__(
        self,
        session: Any,
        auth: Any,
        endpoint: str,
        *,
        timeout: float,
        retry: Repeater,
        clock: Clock = time,
    ) -> None:
        adapter = CinderAdapter(session)
        self._client = cinderclient.Client(
            MICROVERSION,
            session=adapter,
            auth=auth,
            endpoint_override=endpoint,
            retries=0,
            logger=_WIRE,
        )
        self._call = adapter.call
        #: Returns the time by Cinder's clock; ``None`` before the first response.
        self.now = adapter.now
        self._timeout = timeout
        self._clock = clock
        #: Repeats a request after a temporary error, for requests that the engine does not repeat.
        self.retry = retry

    # Volumes

    def create(
        self,
        name: str,
        gibibytes: int,
        volume_type: str | None,
        metadata: Mapping[str, str],
        source: str | None = None,
    ) -> Volume:
        """Start to create a volume.

        :param source: the id of the volume to clone; ``None`` for an empty one
        :raises StorageFull: the quota is used up
        :raises BadStoreConfiguration: there is no such volume type
        """
        try:
            with self._call(f"create a volume of {gibibytes} GiB"):
                volume = self._client.volumes.create(
                    gibibytes,
                    name=name,
                    volume_type=volume_type,
                    metadata=dict(metadata),
                    source_volid=source,
                )
                return Volume.parse(volume)
        except NotFound as error:
            if source is not None and source in str(error):
                raise
            raise BadStoreConfiguration(
                f"Cinder has no volume type {volume_type!r} for this project: set "
                f"cinder_volume_type to one that it has. ({error})"
            ) from error

    def get(self, volume_id: str) -> Volume:
        """Return a volume.

        :raises NotFound: it does not exist, or this user may not see it
        """
        try:
            with self._call(f"show volume {volume_id}"):
                return Volume.parse(self._client.volumes.get(volume_id))
        except NotFound as error:
            raise not_found(f"in volume {volume_id}", str(error)) from error

    def find(self, name: str) -> Volume | None:
        """Return the volume with an upload's temporary name, ``None`` if there is none.

        A volume that is being deleted does not count: an earlier attempt of the upload left it.
        """
        with self._call("list volumes by name"):
            volumes = map(Volume.parse, self._client.volumes.list(search_opts={"name": name}))
            return next((volume for volume in volumes if volume.status != "deleting"), None)

    def volumes(self) -> Iterator[Volume]:
        """Yield every volume of the project once."""
        seen: set[str] = set()
        for _ in range(_RESTARTS):
            # A page begins after a volume, which may be deleted meanwhile; then start again.
            with contextlib.suppress(NotFound):
                yield from self._pages(seen)
                return
        raise RemoteServiceUnavailable("Volumes went while they were listed, again and again.")

    def _pages(self, seen: set[str]) -> Iterator[Volume]:
        marker: str | None = None
        markers = set()
        while True:
            page = self.retry(functools.partial(self._page, marker))
            for volume in page:
                if volume.id not in seen:
                    seen.add(volume.id)
                    yield volume
            if len(page) < _PAGE:
                return
            marker = page[-1].id
            if marker in markers:
                raise BackendException(
                    f"Expected the volumes behind {ascii(marker)[:80]}, got a page that "
                    "ends with it again. Check what is between."
                )
            markers.add(marker)

    def _page(self, marker: str | None) -> list[Volume]:
        with self._call("list the volumes"):
            return [
                Volume.parse(volume)
                for volume in self._client.volumes.list(marker=marker, limit=_PAGE)
            ]

    def delete(self, volume_id: str) -> None:
        """Start deleting a volume.

        :raises BackendException: the volume's state does not allow it, see :func:`is_invalid_state`
        """
        with self._call(f"delete volume {volume_id}"):
            self._client.volumes.delete(volume_id)

    def has_snapshots(self, volume_id: str) -> bool:
        """Return whether a volume has snapshots."""
        with self._call(f"list the snapshots of volume {volume_id}"):
            return bool(
                self._client.volume_snapshots.list(
                    search_opts={"volume_id": volume_id}, detailed=False
                )
            )

    def extend(self, volume_id: str, gibibytes: int) -> None:
        """Start to extend a volume.

        :raises StorageFull: the quota is used up
        """
        with self._call(f"extend volume {volume_id} to {gibibytes} GiB"):
            self._client.volumes.extend(volume_id, gibibytes)

    def update(self, volume_id: str, name: str, metadata: Mapping[str, str]) -> None:
        """Replace a volume's name and all of its metadata in a single request."""
        with self._call(f"name volume {volume_id}"):
            self._client.volumes.update(
                volume_id, name=name, description=None, metadata=dict(metadata)
            )

    def set_description(self, volume_id: str, description: str) -> None:
        """Replace a volume's description, which sets its ``updated_at``.

        New metadata would not set it: Cinder does not count them as a change of the volume.
        """
        with self._call(f"describe volume {volume_id}"):
            self._client.volumes.update(volume_id, description=description)

    def set_readonly(self, volume_id: str) -> None:
        """Make a volume read-only for all later attachments."""
        with self._call(f"make volume {volume_id} read-only"):
            self._client.volumes.update_readonly_flag(volume_id, True)

    def wait_until_stable(
        self, volume_id: str, unstable: Collection[str] = UNSTABLE, *, changing: bool = False
    ) -> Volume:
        """Wait until a volume's state is not one of ``unstable``, and return the volume.

        :param changing: whether a change of the state was just requested; if so, wait a moment
            before the first request
        :raises TimeoutError: the state did not change within cinder_state_transition_timeout
        """
        status = ""

        def get() -> Volume | None:
            nonlocal status
            volume = self.get(volume_id)
            status = volume.status
            return None if status in unstable else volume

        delay = FIRST_INTERVAL if changing else 0.0
        volume = poll(get, self._timeout, delay=delay, clock=self._clock)
        if volume is None:
            raise TimeoutError(
                f"Volume {volume_id} is still in state {status!r} after %(timeout)g s "
                "(cinder_state_transition_timeout). Look at Cinder's logs, or raise the limit.",
                timeout=self._timeout,
            )
        return volume

    # Attachments

    def create_attachment(self, volume_id: str, mode: str, timeout: float) -> str:
        """Reserve a volume and return the attachment's id.  Wait while others attach the volume.

        :param mode: ``ro``, or ``rw`` for an upload's volume, which no other client may attach
        :param timeout: seconds to wait
        :raises BackendException: the volume cannot be attached
        :raises NotFound: the volume does not exist, or is being deleted
        """
        refusal: StoreError | None = None
        status = ""

        def attempt() -> str | None:
            nonlocal refusal, status
            try:
                with self._call(f"attach volume {volume_id}"):
                    attachment = self._client.attachments.create(volume_id, None, mode=mode)
                    return text(attachment["id"])
            except StoreError as error:
                if not is_invalid_state(error):
                    raise
                status = self.get(volume_id).status
                check_attachable(volume_id, status)
                refusal = error
            if mode == "rw" and status == "reserved" and self._delete_reserved(volume_id):
                return attempt()
            return None

        attachment_id = poll(attempt, timeout, longest=_TURN, clock=self._clock)
        if attachment_id is None:
            raise BackendException(
                f"Volume {volume_id} did not become free to attach within {timeout:g} s "
                f"(cinder_attachment_retry_attempts): it is in state {status!r}. "
                f"{_BUSY.get(status, _OTHERS)} ({refusal})"
            ) from refusal
        return attachment_id

    def _delete_reserved(self, volume_id: str) -> bool:
        """Delete the reserved attachments of an upload's volume; return whether there were any.

        They are the upload's own, from a :meth:`create_attachment` whose response was lost.
        """
        reserved = [
            attachment
            for attachment in self.attachments(volume_id)
            if attachment.status == "reserved"
        ]
        for attachment in reserved:
            with contextlib.suppress(NotFound):
                self.delete_attachment(attachment.id)
        return bool(reserved)

    def update_attachment(
        self, attachment_id: str, connector: Mapping[str, Any]
    ) -> VolumeAttachment:
        """Make the volume reachable from this host; return the attachment with its connection info.

        :param connector: this host's properties, from os-brick
        """
        with self._call("make a volume reachable from this host"):
            return VolumeAttachment.parse(
                self._client.attachments.update(attachment_id, dict(connector))
            )

    def complete_attachment(self, attachment_id: str) -> None:
        """Tell Cinder that the volume is connected; its attachment is then complete."""
        with self._call("complete an attachment"):
            self._client.attachments.complete(attachment_id)

    def delete_attachment(self, attachment_id: str) -> None:
        """Delete an attachment.

        :raises NotFound: it was deleted before
        """
        with self._call("end an attachment"):
            self._client.attachments.delete(attachment_id)

    def attachments(self, volume_id: str) -> list[VolumeAttachment]:
        """Return the attachments of a volume, incomplete ones too."""
        with self._call(f"list the attachments of volume {volume_id}"):
            attachments = self._client.attachments.list(
                detailed=True, search_opts={"volume_id": volume_id}
            )
            return [VolumeAttachment.parse(attachment) for attachment in attachments]

    # Volume types

    def has_type(self, name: str) -> bool:
        """Return whether this user can see a volume type of this name."""
        with self._call("list the volume types"):
            types = self._client.volume_types.list(is_public=None)
            return name in [text(volume_type.name) for volume_type in types]

    def default_type(self) -> str | None:
        """Return the name of Cinder's default volume type, ``None`` if there is none."""
        try:
            with self._call("show the default volume type"):
                return text(self._client.volume_types.default().name)
        except NotFound:
            return None


#: What to do about a volume that cannot be attached: for other states, and by state.
_OTHERS = (
    "Something else has it attached. Give the volume type "
    'multiattach="<is> True" where several hosts read one volume.'
)
_SWEEP = (
    "Sweep the store (store-lib sweep), which ends it once it is "
    f"{HEARTBEAT_TIMEOUT // 60} minutes old."
)
_BUSY = {
    "reserved": "An attachment was begun and not made, perhaps because Cinder's response was lost. "
    f"{_SWEEP}",
    "attaching": f"An attachment was begun and not completed. {_SWEEP}",
    "detaching": "Cinder is detaching it; if that does not end, look at Cinder's logs.",
}


def check_attachable(volume_id: str, status: str) -> None:
    """Check that a volume in state ``status`` can be attached.

    :raises NotFound: the volume is being deleted
    :raises BackendException: the state does not allow it
    """
    if status == "deleting":
        raise not_found(f"in volume {volume_id}", "the volume is being deleted")
    if status not in ATTACHABLE:
        raise BackendException(
            f"Volume {volume_id} is in state {status!r} and cannot be attached. Expected "
            "'available' or 'in-use': wait until Cinder has ended what it is doing with it, or "
            "look for the reason in Cinder, and reset its state there."
        )
