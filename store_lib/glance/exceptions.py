"""glance_store's exceptions: store_lib's own, which have its names and form, and the few others."""

from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    Duplicate,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    Invalid,
    MaxRedirectsExceeded,
    MissingCredentialError,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreAddDisabled,
    StoreDeleteNotSupported,
    StoreError,
    StoreGetNotSupported,
    StoreRandomGetNotSupported,
    TimeoutError,
    UnknownHashingAlgo,
    UnknownScheme,
    UnsupportedBackend,
)

#: The root; here it is the root of BackendException too.
GlanceStoreException = StoreError


class RedirectException(Exception):
    """A server sends the caller to ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


# Nothing here raises what follows; drivers of others may, and services may name them.


class BadAuthStrategy(StoreError):
    """The authentication is not of the kind that was expected."""

    message = 'Incorrect auth strategy, expected "%(expected)s" but received "%(received)s"'


class AuthorizationRedirect(StoreError):
    """The login has to be made elsewhere."""

    message = "Redirecting to %(uri)s for authorization."


class AuthBadRequest(StoreError):
    """The authentication service refused the request as malformed, or did not answer."""

    message = "Connect error/bad request to Auth service at URL %(url)s."


class AuthUrlNotFound(StoreError):
    """There is no authentication service."""

    message = "Auth service at URL %(url)s not found."


class NoServiceEndpoint(StoreError):
    """The catalogue has no endpoint of the service."""

    message = "Response from Keystone does not contain a Glance endpoint."


class RegionAmbiguity(StoreError):
    """The catalogue has several endpoints, and no region was named."""

    message = (
        "Multiple 'image' service matches for region %(region)s. This generally means that a "
        "region is required and you have not supplied one."
    )


class HostNotInitialized(StoreError):
    """The host's mounts were not set up yet."""

    message = (
        "The glance cinder store host %(host)s which will used to perform nfs mount/umount "
        "operations isn't initialized."
    )


__all__ = [
    "AuthBadRequest",
    "AuthUrlNotFound",
    "AuthorizationFailure",
    "AuthorizationRedirect",
    "BackendException",
    "BadAuthStrategy",
    "BadStoreConfiguration",
    "BadStoreUri",
    "DriverLoadFailure",
    "Duplicate",
    "Forbidden",
    "GlanceStoreException",
    "HasSnapshot",
    "HostNotInitialized",
    "InUseByStore",
    "Invalid",
    "MaxRedirectsExceeded",
    "MissingCredentialError",
    "NoServiceEndpoint",
    "NotAuthenticated",
    "NotFound",
    "RedirectException",
    "RegionAmbiguity",
    "RemoteServiceUnavailable",
    "StorageFull",
    "StorageWriteDenied",
    "StoreAddDisabled",
    "StoreDeleteNotSupported",
    "StoreGetNotSupported",
    "StoreRandomGetNotSupported",
    "TimeoutError",
    "UnknownHashingAlgo",
    "UnknownScheme",
    "UnsupportedBackend",
]
