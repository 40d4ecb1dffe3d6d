"""The TLS settings of a store."""

import ssl

from store_lib.clients.process import PerProcess
from store_lib.display import get_logger
from store_lib.exceptions import BadStoreConfiguration
from store_lib.options import StoreOptions

_LOG = get_logger(__name__)


def make_context(store_id: str, option: str, path: str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a file, or else the system's.

    :param option: the name of the option with the file
    :param path: the file; ``None`` for the system's authorities
    :raises BadStoreConfiguration: the file cannot be used
    """
    try:
        return ssl.create_default_context(cafile=path or None)
    except OSError as error:
        raise BadStoreConfiguration(
            store_name=store_id,
            reason=f"{option}: expected a readable file of certificates in PEM, got {path} "
            f"({error.strerror or error})",
            store=store_id,
        ) from error


class Tls:
    """How certificates are verified: against a file, the system's authorities, or not at all.

    Every process has its own context: OpenSSL locks a context during a handshake, and a child that
    is forked then would wait for the lock forever.

    :param authorities: the name of the option with the file; if it is set, verification is on
    :param insecure: the name of the option that switches verification off, of which a warning is
        logged once
    :param peers: the servers, for the warning
    :raises BadStoreConfiguration: the file cannot be used
    """

    def __init__(
        self, store_id: str, options: StoreOptions, *, authorities: str, insecure: str, peers: str
    ) -> None:
        self._store_id = store_id
        self._option = authorities
        self._path = options[authorities]
        self._verified = bool(self._path) or not options[insecure]
        self._contexts = PerProcess(self._make)
        if self._path:
            self._contexts.get()
        if options[insecure] and self._verified:
            _LOG.warning("Store %s: %s is ignored, as %s is set", store_id, insecure, authorities)
        elif not self._verified:
            _LOG.warning(
                "Store %s: certificates of %s are not verified (%s)", store_id, peers, insecure
            )

    @property
    def context(self) -> ssl.SSLContext:
        """This process's context.

        :raises BadStoreConfiguration: the file can no longer be used
        """
        return self._contexts.get()

    def _make(self) -> ssl.SSLContext:
        context = make_context(self._store_id, self._option, self._path)
        if not self._verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
