"""What Swift's refusals mean, as the library's errors."""

from collections.abc import Mapping
from typing import Any

from urllib3.response import BaseHTTPResponse

from store_lib.clients.decoding import Unexpected, display, fields, parse_json
from store_lib.clients.network_errors import BUSY, OptionNames, Server, quoted
from store_lib.clients.response_headers import retry_after
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)

#: Besides :data:`BUSY`: too many requests at once, as Swift says it, and a body that never came.
_BUSY = BUSY | {498, 499}


OPTION_NAMES = OptionNames(
    "swift_store_cacert", "swift_store_connect_timeout", "swift_store_read_timeout"
)


def server_of(url: str) -> Server:
    """Return the server of a storage URL, as messages speak of it."""
    scheme, _, rest = url.partition("://")
    return Server(f"{scheme}://{rest.partition('/')[0]}", OPTION_NAMES)


def refused(status: int, what: str, said: str = "", later: float | None = None) -> StoreError:
    """Return the error that an answer with this status means.

    :param what: what was to be done, such as ``Adding c/o to http://host``
    :param said: the beginning of the answer's body
    :param later: seconds after which the server asks to be tried again
    """
    if status == 401:
        # The next attempt is made with another token.
        return NotAuthenticated(
            f"{what} failed: Swift refuses the token (401).", status=ErrorStatus.TEMPORARY
        )
    if status == 403:
        return Forbidden(
            f"{what} is forbidden (403). Check the user's role in the project, or the "
            "container's access lists."
        )
    if status in (404, 410):
        return NotFound(f"{what} failed: there is no such object ({status}).")
    if status == 413:
        return StorageFull(
            f"{what} failed: it is too large, or over a quota (413{said}). Free space or raise the "
            "quota; where the server's limit of one object is meant, lower "
            "swift_store_large_object_size and swift_store_large_object_chunk_size."
        )
    if status == 507:
        return StorageFull(f"{what} failed: the cluster has no room (507).")
    if status in _BUSY:
        return RemoteServiceUnavailable(
            f"{what} failed: Swift cannot serve now ({status}{said}).", retry_after=later
        )
    return BackendException(f"{what} failed: Swift answered {status}{said}.")


def refusal(response: BaseHTTPResponse, what: str) -> StoreError:
    """Return the error that an answer means, quoting what it says."""
    return refused(response.status, what, quoted(response), retry_after(response.headers))


def report_of(body: bytes) -> Mapping[str, Any] | None:
    """Return what an answer reports in its body, when its status came before the work.

    ``None`` when it is no such report: then the status is what there is.
    """
    try:
        report = fields(parse_json(body))
    except Unexpected:
        return None
    return report if "Response Status" in report else None


def reported(report: Mapping[str, Any]) -> tuple[int, str]:
    """Return the real status in a report, and the first of its complaints.

    Where parts of the work failed, the whole is 400: then the part's own status says more.
    """
    status = _number(report["Response Status"])
    errors = report.get("Errors")
    if not isinstance(errors, list) or not errors:
        return status, ""
    first = errors[0] if isinstance(errors[0], list) else errors[:1]
    part = _number(first[1]) if len(first) == 2 else 400
    if status < 300 or (status == 400 and (part in (401, 403) or part >= 500)):
        status = part
    return status, f": {display(' '.join(each for each in first if isinstance(each, str)))}"


def _number(status: object) -> int:
    word = str(status).partition(" ")[0]
    return int(word) if word.isdecimal() and len(word) == 3 else 400
