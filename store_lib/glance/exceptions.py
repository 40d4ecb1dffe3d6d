"""glance_store's exceptions: store_lib's, which have the same names, and the remaining few."""

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

#: The base class; here BackendException is derived from it too.
GlanceStoreException = StoreError


class RedirectException(Exception):
    """A server redirects the caller to ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


# store_lib does not raise the following; third-party drivers may, and services may catch them.


class BadAuthStrategy(StoreError):
    """The authentication strategy is not the expected one."""

    message = 'Incorrect auth strategy, expected "%(expected)s" but received "%(received)s"'


class AuthorizationRedirect(StoreError):
    """The authentication service redirects to another one."""

    message = "Redirecting to %(uri)s for authorization."


class AuthBadRequest(StoreError):
    """The authentication service rejected the request as malformed, or did not answer."""

    message = "Connect error/bad request to Auth service at URL %(url)s."


class AuthUrlNotFound(StoreError):
    """There is no authentication service at the URL."""

    message = "Auth service at URL %(url)s not found."


class NoServiceEndpoint(StoreError):
    """The catalogue has no endpoint for the service."""

    message = "Response from Keystone does not contain a Glance endpoint."


class RegionAmbiguity(StoreError):
    """The catalogue has several endpoints, and no region was given."""

    message = (
        "Multiple 'image' service matches for region %(region)s. This generally means that a "
        "region is required and you have not supplied one."
    )


class HostNotInitialized(StoreError):
    """The host's mounts are not set up yet."""

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
