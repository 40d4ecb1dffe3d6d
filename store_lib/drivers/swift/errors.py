"""Translates Swift's error responses into the library's errors."""

from collections.abc import Mapping
from typing import Any

from urllib3.response import BaseHTTPResponse

from store_lib.clients import http
from store_lib.clients.decoding import Unexpected, display, fields, parse_json
from store_lib.clients.network_errors import BUSY, login_refused, quoted
from store_lib.exceptions import BackendException, ErrorStatus, StoreError

#: Temporary statuses: :data:`BUSY`, and Swift's own for too many requests (498) and for a body that
#: did not arrive (499).
_BUSY = BUSY | {498, 499}

_ADVICE = {
    403: "Check the user's role in the project, or the container's access lists.",
    413: "Free space or raise the quota; if the server's limit for one object is meant, lower "
    "swift_store_large_object_size and swift_store_large_object_chunk_size.",
}


def error_for_response(response: BaseHTTPResponse, doing: str, name: str) -> StoreError:
    """Return the error for a response, with a quote of its body; see :func:`error_for_status`."""
    return error_for_status(response.status, doing, name, quoted(response), response.headers)


def error_for_status(
    status: int, doing: str, name: str, quote: str, headers: Mapping[str, str]
) -> StoreError:
    """Return the error for a response's status.

    :param doing: the verb of the request, such as ``Reading``
    :param name: the target of the request, such as an object and its server
    :param quote: the beginning of the response's body
    :param headers: the response's headers
    """
    error = http.error_for_status(
        status, doing, name, quote=quote, headers=headers, advice=_ADVICE, busy=_BUSY
    )
    if status == 401:  # temporary, as the next attempt has another token
        error.status = ErrorStatus.TEMPORARY
    return error


def login_error(response: http.HttpResponse, address: str) -> StoreError:
    """Return the error for a response to the login of version 1 that is no login.

    :param address: where the login was sent to
    """
    status = response.status
    if status in (401, 403):
        return login_refused(address, status, "Check user and key of the store.")
    if status in BUSY:
        return error_for_status(status, "Logging in at", address, "", response.headers)
    return BackendException(
        f"Expected a token and a storage URL from {address}, got status {status}. Check the "
        "address, and that auth_version 1 is what is spoken there."
    )


def parse_report(body: bytes) -> Mapping[str, Any] | None:
    """Parse the body of a response whose status was sent before the server had done the work.

    Return ``None`` if the body is not a report; then the response's own status is the real one.
    """
    try:
        report = fields(parse_json(body))
    except Unexpected:
        return None
    return report if "Response Status" in report else None


def heartbeat_result(report: Mapping[str, Any]) -> tuple[int, str]:
    """Return the real status in a report, and the first error in it.

    If a part of the work failed, the report's own status is just 400; then the status of that part
    is returned.
    """
    status = _number(report["Response Status"])
    errors = report.get("Errors")
    if not isinstance(errors, list) or not errors:
        return status, ""
    first = errors[0] if isinstance(errors[0], list) else errors[:1]
    part = _number(first[1]) if len(first) == 2 else 400
    if status < 300 or (status == 400 and (part in (401, 403) or part >= 500)):
        status = part
    return status, f": {display(' '.join(word for word in first if isinstance(word, str)))}"


def _number(status: object) -> int:
    word = str(status).partition(" ")[0]
    return int(word) if word.isdecimal() and len(word) == 3 else 400
