"""Trusts: a user lets the service act for them, so that an upload outlives their token."""

import dataclasses
import datetime
import secrets
import threading
from typing import Any

from store_lib.clients.decoding import entries, text
from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.display import get_logger
from store_lib.drivers.swift.client import Account
from store_lib.drivers.swift.references import KeystoneAccount
from store_lib.exceptions import StoreError
from store_lib.options import StoreOptions

_LOG = get_logger(__name__)

#: After this a trust ends, should the process die before it ends it.
_LONGEST = datetime.timedelta(days=7)
#: So many seconds it may last longer: Keystone refuses a trust that is to end at the very same time
#: as another one between the same two users.
_SPREAD = 24 * 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Trust:
    """A trust, and the trustee's login with it."""

    trust_id: str
    login: KeystoneLogin

    def end(self) -> None:
        """End the trust, and the login."""
        # By the trust's own login, which acts for the user whose token may have ended.
        try:
            self.login.call("DELETE", f"/OS-TRUST/trusts/{self.trust_id}", self.login.token())
        except StoreError as error:
            _LOG.warning("Trust %s could not be ended: %s", self.trust_id, error)
        finally:
            self.login.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Trustee:
    """The service's user, whom users trust."""

    login: KeystoneLogin
    settings: ConnectionSettings
    options: StoreOptions

    def create_trust(self, account: Account) -> Trust | None:
        """Create a trust of the account's user.

        If Keystone refuses it, the user's own token has to do: log a warning, and return ``None``.
        """
        try:
            trust_id = self._create(account.login.token())
        except StoreError as error:
            _LOG.warning(
                "No trust for an upload in segments, which will fail if it outlives its user's "
                "token: %s",
                error,
            )
            return None
        own = self.login.credentials
        credentials = Credentials(
            auth_url=own.auth_url,
            username=own.username,
            password=own.password,
            user_domain_id=own.user_domain_id,
            user_domain_name=own.user_domain_name,
            trust_id=trust_id,
        )
        return Trust(trust_id, KeystoneLogin(credentials, self.settings))

    def _create(self, token: str) -> str:
        """Create a trust with the token's own project and roles, and return its id."""
        user, project, roles = self.login.call(
            "GET", "/auth/tokens?nocatalog", token, decode=_parse_user
        )
        end = datetime.datetime.now(datetime.UTC) + _LONGEST
        end += datetime.timedelta(seconds=secrets.randbelow(_SPREAD))
        trust = {
            "trustor_user_id": user,
            "trustee_user_id": self.login.user_id(),
            "project_id": project,
            "impersonation": True,
            "roles": [{"id": role} for role in roles],
            "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return self.login.call(
            "POST",
            "/OS-TRUST/trusts",
            token,
            {"trust": trust},
            decode=lambda answer: text(answer["trust"]["id"]),
        )


class UploadLogin:
    """An upload's way into an account: the user's login, and a trust's once it is extended.

    :ivar account: the account with the present login
    :param trustee: whom the user is to trust; ``None`` if the login lasts as it is
    """

    def __init__(self, account: Account, trustee: Trustee | None) -> None:
        self.account = self._own = account
        self._trustee = trustee
        self._trust: Trust | None = None
        self._lock = threading.Lock()

    def extend(self) -> None:
        """Create a trust, unless that was tried before."""
        with self._lock:
            trustee, self._trustee = self._trustee, None
            if trustee is None:
                return
            self._trust = trustee.create_trust(self._own)
            if self._trust is not None:
                # The storage URL is the user's, whatever the catalog of the new token says.
                self.account = dataclasses.replace(
                    self._own,
                    login=KeystoneAccount(self._trust.login, trustee.options),
                    url=self._own.storage_url,
                )

    def end(self) -> None:
        """End the trust, and go back to the user's login."""
        with self._lock:
            trust, self._trust = self._trust, None
            self._trustee = None
            self.account = self._own
        if trust is not None:
            trust.end()


def _parse_user(answer: Any) -> tuple[str, str, list[str]]:
    """Return the ids of a token's user, its project and its roles."""
    token = answer["token"]
    roles = [text(role["id"]) for role in entries(token["roles"])]
    return text(token["user"]["id"]), text(token["project"]["id"]), roles
