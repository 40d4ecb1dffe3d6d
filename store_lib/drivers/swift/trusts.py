"""Trusts, by which the service acts for a user, so that an upload outlives the user's token."""

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

#: Minimum lifetime of a trust, after which it expires if the process has died and not deleted it.
_LONGEST = datetime.timedelta(days=7)
#: Up to this many seconds are added at random, as Keystone refuses two trusts between the same
#: users that expire at the same time.
_SPREAD = 24 * 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Trust:
    """A Keystone trust, and the trustee's login that is scoped to it."""

    trust_id: str
    login: KeystoneLogin

    def end(self) -> None:
        """Delete the trust, and end the login."""
        # The trust's own login deletes it, as the user's token may have expired.
        try:
            self.login.call("DELETE", f"/OS-TRUST/trusts/{self.trust_id}", self.login.token())
        except StoreError as error:
            _LOG.warning("Trust %s could not be ended: %s", self.trust_id, error)
        finally:
            self.login.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Trustee:
    """The service's user, for whom other users create trusts."""

    login: KeystoneLogin
    settings: ConnectionSettings
    options: StoreOptions

    def create_trust(self, account: Account) -> Trust | None:
        """Create a trust by the account's user.

        If Keystone refuses this, log a warning and return ``None``; the upload then goes on with
        the user's token.
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
        """Create a trust with the project and the roles of the token, and return the trust's id."""
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
    """The login of an upload: the user's, and after :meth:`extend` that of a trust.

    :ivar account: the account with the current login
    :param trustee: the user to create the trust for; ``None`` if the login does not expire
    """

    def __init__(self, account: Account, trustee: Trustee | None) -> None:
        self.account = self._own = account
        self._trustee = trustee
        self._trust: Trust | None = None
        self._lock = threading.Lock()

    def extend(self) -> None:
        """Create a trust and use its login, unless this was tried before."""
        with self._lock:
            trustee, self._trustee = self._trustee, None
            if trustee is None:
                return
            self._trust = trustee.create_trust(self._own)
            if self._trust is not None:
                # Keep the user's storage URL, even if the catalog of the new token has another.
                self.account = dataclasses.replace(
                    self._own,
                    login=KeystoneAccount(self._trust.login, trustee.options),
                    url=self._own.storage_url,
                )

    def end(self) -> None:
        """Delete the trust, and use the user's login again."""
        with self._lock:
            trust, self._trust = self._trust, None
            self._trustee = None
            self.account = self._own
        if trust is not None:
            trust.end()


def _parse_user(answer: Any) -> tuple[str, str, list[str]]:
    """Return the ids of a token's user, project and roles."""
    token = answer["token"]
    roles = [text(role["id"]) for role in entries(token["roles"])]
    return text(token["user"]["id"]), text(token["project"]["id"]), roles
