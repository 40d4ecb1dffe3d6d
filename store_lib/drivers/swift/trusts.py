"""Trusts: a user lets the service act for him, so that an upload outlives his token."""

import dataclasses
import datetime
import secrets
from collections.abc import Callable
from typing import Any

from store_lib.clients.decoding import entries, text
from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.display import get_logger
from store_lib.drivers.swift.account import Account
from store_lib.drivers.swift.logins import KeystoneAccount
from store_lib.exceptions import StoreError
from store_lib.options import StoreOptions

_LOG = get_logger(__name__)

#: After this a trust ends by itself, should the process die before it ends it.
_LONGEST = datetime.timedelta(days=7)
#: So many seconds it may last longer: Keystone refuses a trust that ends at the very same time as
#: another one between the same two users had been meant to.
_SPREAD = 24 * 3600


@dataclasses.dataclass(frozen=True, slots=True)
class Trustee:
    """The service's user, whom users trust."""

    login: KeystoneLogin
    how: ConnectionSettings
    options: StoreOptions

    def trusted_by(self, account: Account) -> tuple[Account, Callable[[], None]]:
        """Return the user's account with a login that lasts, and what ends the trust.

        Where Keystone refuses the trust, the user's own token has to do: a warning says so.
        """
        try:
            trust = self._make(account.login.token())
        except StoreError as error:
            _LOG.warning(
                "No trust for an upload in segments, which will fail if it outlives its user's "
                "token: %s",
                error,
            )
            return account, lambda: None
        ours = self.login.credentials
        login = KeystoneLogin(
            Credentials(
                auth_url=ours.auth_url,
                username=ours.username,
                password=ours.password,
                user_domain_id=ours.user_domain_id,
                user_domain_name=ours.user_domain_name,
                trust_id=trust,
            ),
            self.how,
        )
        # The storage URL is the user's, whatever the catalog of the new token says.
        lasting = dataclasses.replace(
            account, login=KeystoneAccount(login, self.options), url=account.storage_url
        )
        return lasting, lambda: self._end(login, trust)

    def _make(self, token: str) -> str:
        """Make the trust, with the token's own project and roles, and return its id."""
        user, project, roles = self.login.call(
            "GET", "/auth/tokens?nocatalog", token, decode=_user_of
        )
        end = datetime.datetime.now(datetime.UTC) + _LONGEST
        end += datetime.timedelta(seconds=secrets.randbelow(_SPREAD))
        asked = {
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
            {"trust": asked},
            decode=lambda made: text(made["trust"]["id"]),
        )

    @staticmethod
    def _end(login: KeystoneLogin, trust: str) -> None:
        # By the trust's own login, which acts for the user whose token may have ended.
        try:
            login.call("DELETE", f"/OS-TRUST/trusts/{trust}", login.token())
        except StoreError as error:
            _LOG.warning("Trust %s could not be ended: %s", trust, error)
        finally:
            login.close()


def _user_of(answer: Any) -> tuple[str, str, list[str]]:
    """Return the ids of a token's user, its project and its roles."""
    token = answer["token"]
    roles = [text(each["id"]) for each in entries(token["roles"])]
    return text(token["user"]["id"]), text(token["project"]["id"]), roles
