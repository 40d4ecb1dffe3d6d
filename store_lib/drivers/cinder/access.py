"""Who Cinder is asked as: the service's own login, else the user of the request's context."""

from collections.abc import Mapping
from typing import Any

from keystoneauth1.token_endpoint import Token

from store_lib.clients.decoding import decoding, url
from store_lib.clients.keystone import ConnectionSettings, ContextLogin, Credentials, KeystoneLogin
from store_lib.clients.process import PerProcess
from store_lib.clients.sessions import open_session
from store_lib.clients.tls import Tls
from store_lib.driver import Repeater, once
from store_lib.drivers.cinder.api import Cinder
from store_lib.exceptions import BadStoreConfiguration
from store_lib.options import StoreOptions

#: Service types of interfaces that Cinder no longer has.
_FORMER = frozenset({"volume", "volumev2"})


class Access:
    """The way to Cinder of one store.

    :param retry: repeats a request after a temporary error
    :raises BadStoreConfiguration: cinder_catalog_info is malformed, or the file of authorities
        cannot be used
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
                raising=lambda text: BadStoreConfiguration(
                    store_name=store_id, reason=text, store=store_id
                ),
                advice="A login has options of its own.",
            ):
                url(address)
        self._service = "volumev3" if parts[0] in _FORMER else parts[0]
        self._name, self._interface = parts[1] or None, parts[2]
        # Here, as the clients' library lets what it finds wrong with the file through as it comes.
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
        """Whether Cinder can be asked without a request context."""
        return self._login is not None

    def cinder(self, context: Any) -> Cinder:
        """Return Cinder to ask, by the service's login or with the context's token.

        :raises BadStoreConfiguration: there is neither, or Cinder is not in the catalog
        :raises AuthorizationFailure: the login was refused
        """
        if self._login is not None:
            session, auth = self._login.session, None
            url = self._url(self._login, None)
        else:
            login = ContextLogin(_checked(context))
            url = self._url(login, context)
            session, auth = self._session.get(), Token(url, login.token())
        return Cinder(
            session,
            auth,
            url,
            patience=self._options.cinder_state_transition_timeout,
            retry=self._retry,
        )

    def _url(self, login: KeystoneLogin | ContextLogin, context: Any) -> str:
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
            return url(template % self._values(login, context))

    @staticmethod
    def _values(login: KeystoneLogin | ContextLogin, context: Any) -> Mapping[str, Any]:
        """Return what a template may name."""
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

    def project(self, context: Any) -> str:
        """Return the id of the project that an object belongs to: the caller's, where known."""
        found = getattr(context, "project_id", None)
        if not found and self._login is not None:
            found = self._login.project_id()
        return str(found or "")

    def close(self) -> None:
        """Close this process's connections."""
        if self._login is not None:
            self._login.close()
        session = self._session.take()
        if session is not None:
            session.session.close()


def _credentials(options: StoreOptions) -> Credentials | None:
    """Return the service's own login, where all of it is configured."""
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


def _checked(context: Any) -> Any:
    if context is None:
        raise BadStoreConfiguration(
            "Expected a request context, as the service has no login of its own for Cinder; got "
            "none. Set cinder_store_auth_address, cinder_store_user_name, cinder_store_password "
            "and cinder_store_project_name, or pass the context."
        )
    return context
