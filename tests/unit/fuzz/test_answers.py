"""What Swift, Keystone and Cinder answer in JSON, and the texts of S3's and vSphere's faults."""

import contextlib
import functools
import json
import math
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from store_lib.clients import decoding
from store_lib.clients.keystone import ContextLogin, find_endpoint
from store_lib.drivers.s3.client import Head
from store_lib.drivers.s3.errors import translate
from store_lib.drivers.s3.publishing import StoredClaim
from store_lib.drivers.swift.client import parse_names, parse_objects
from store_lib.drivers.swift.errors import error_for_status, heartbeat_result, parse_report
from store_lib.drivers.swift.segments import parse_manifest
from store_lib.drivers.swift.trusts import _parse_user
from store_lib.drivers.vmware.errors import fault_error, soap_error
from store_lib.exceptions import BackendException, BadStoreConfiguration, StoreError
from store_lib.glance.backend import _check_metadata
from store_lib.glance.exceptions import BackendException as GlanceBackendException
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import CANARY, Mutator
from tests.unit.fuzz.test_heads import _SERVER, _fields

_LISTING = json.dumps(
    [
        {
            "name": "id-1",
            "bytes": 12,
            "hash": "0cc175b9c0f1b6a831c399e269772661",
            "last_modified": "2026-11-20T16:30:27.432780",
            "content_type": "application/octet-stream",
        },
        {"name": "é", "bytes": 0, "hash": "x", "last_modified": "2026-11-20T16:30:27+01:00"},
    ]
)
_CONTAINERS = json.dumps([{"name": "glance", "count": 2, "bytes": 5}, {"name": "b"}])
_MANIFEST = json.dumps(
    [
        {"name": "/glance/.segments/id/x/00000001", "bytes": 5, "hash": "a", "sub_slo": True},
        {"name": "/glance/id-00002", "bytes": 7, "hash": "b", "range": "1-2"},
        {"data": "aGVsbG8="},
    ]
)
_REPORT = json.dumps(
    {
        "Response Status": "400 Bad Request",
        "Errors": [["glance/id-00001", "404 Not Found"]],
        "Etag": '"abc"',
        "Number Deleted": 0,
    }
)
_CATALOG = json.dumps(
    [
        {"type": "identity", "name": "keystone", "endpoints": []},
        {
            "type": "object-store",
            "name": "swift",
            "endpoints": [
                {"interface": "admin", "region": "one", "region_id": "one", "url": "http://a"},
                {"interface": "public", "region": "two", "url": "http://two:8080/v1/AUTH_x"},
            ],
        },
    ]
)
_OLD_CATALOG = json.dumps(
    [{"type": "object-store", "endpoints": [{"publicURL": "https://one/v1", "region": "one"}]}]
)


def _objects(body: bytes) -> bool:
    for each in parse_objects(body, None):
        each.name.encode()
        assert 0 <= each.size < 2**63
        assert math.isfinite(each.modified)
    return True


def _containers(body: bytes) -> bool:
    for each in parse_names(body):
        each.encode()
    return True


def _manifest(body: bytes) -> bool:
    for each in parse_manifest(body):
        if each is not None:
            assert each.container
            assert each.name
            assert "/" not in each.container
            assert 0 <= each.size < 2**63
    return True


def _report(body: bytes) -> bool:
    report = parse_report(body)
    if report is None:
        return False
    status, said = heartbeat_result(report)
    assert 0 <= status <= 999
    assert len(said) <= 300
    assert isinstance(error_for_status(status, "PUT", "x", said, {}), StoreError)
    return True


def _catalog(catalog: Any) -> bool:
    login = ContextLogin(SimpleNamespace(auth_token="t", service_catalog=catalog))
    found = 0
    for interface in ("public", "publicURL"):
        for region in (None, "one", "two"):
            try:
                url = login.endpoint("object-store", interface, region)
            except BadStoreConfiguration:
                continue
            assert urlsplit(url).scheme.lower() in ("http", "https")
            assert urlsplit(url).hostname
            found += 1
    with contextlib.suppress(BadStoreConfiguration):
        find_endpoint(catalog, "object-store", "admin", None, "swift")
    return found > 0


def _is_short(said: str) -> None:
    assert CANARY not in said
    assert said.isascii()
    assert len(said) < 400


_KINDS = (
    *(decoding.text, decoding.boolean, decoding.size, decoding.digits, decoding.timestamp),
    *(decoding.fields, decoding.entries, decoding.url),
)
_VALUES = ['"a"', "5", "[{}]", '{"a": 1}', '"http://a:80"', '"2026-11-20T16:30:27Z"', "true"]


def _decode(value: Any) -> bool:
    """Decode a value as each of the types that answers are made of."""
    taken = 0
    for kind in _KINDS:
        try:
            with decoding.decoding("a test", secrets=[CANARY]):
                kind(value)
            taken += 1
        except BackendException as error:
            _is_short(str(error))
    return taken > 0


_USER = '{"token": {"user": {"id": "u"}, "project": {"id": "p"}, "roles": [{"id": "r"}]}}'


def _trust(value: Any) -> bool:
    with decoding.decoding("a user from Keystone"):
        user, project, roles = _parse_user(value)
    assert all(isinstance(each, str) for each in (user, project, *roles))
    return True


def _metadata(value: Any) -> bool:
    _check_metadata("a store", value)
    return True


_S3_ERROR = json.dumps(
    {
        "Error": {"Code": "SlowDown", "Message": "told"},
        "ResponseMetadata": {
            "HTTPStatusCode": 503,
            "RequestId": "tx1",
            "HTTPHeaders": {"retry-after": "5", "x-amz-bucket-region": "eu"},
        },
    }
)
_S3_CODES = ["NoSuchKey", "NoSuchBucket", "InvalidRange", "PreconditionFailed", "AccessDenied"]


class _ClientError(Exception):
    """As botocore's, which has the parts that its parsers give as text, however mad that is."""

    def __init__(self, response: Any) -> None:
        super().__init__("refused")
        self.response = response


def _s3_error(mutator: Mutator) -> Any:
    text = {"SlowDown": mutator.text(_S3_CODES), "told": mutator.text([f"no: {CANARY}", "md5"])}
    response = json.loads(_S3_ERROR)
    error = response["Error"]
    for name in list(error):
        error[name] = text.get(error[name], error[name])
        if mutator.below(6) == 0:
            del error[name]
    facts = response["ResponseMetadata"]
    facts["HTTPStatusCode"] = mutator.one([0, 200, 301, 304, 400, 401, 403, 404, 412, 416, 503])
    facts["HTTPHeaders"] = {name.lower(): each for name, each in _fields(mutator).items()}
    return response


def _s3_refusal(response: Any) -> bool:
    error = translate(_ClientError(response), "http://host", "get_object box/id")
    assert isinstance(error, StoreError)
    assert error.retry_after is None or 0 <= error.retry_after < math.inf
    return True


def _s3_head(fields: dict[str, str]) -> bool:
    """Take the head of an object over, whose texts botocore has left as they came."""
    lower = {name.lower(): each for name, each in fields.items()}
    answer = {
        "ContentLength": 12,
        "ContentRange": fields.get("Content-Range"),
        "ETag": fields.get("ETag"),
        "Metadata": {name: each for name, each in fields.items() if name.startswith("X-")},
        "ResponseMetadata": {"HTTPHeaders": lower},
    }
    found = Head.of(answer)
    assert found.size is None or 0 <= found.size < 10**19
    assert isinstance(found.nonce, str)
    return True


_CLAIM = b"0123456789abcdef0123456789abcdef 30\n"


def _claim(given: tuple[bytes, dict[str, str]]) -> bool:
    """Read a claim: whatever it says, it has owners, a life and an age that can be compared."""
    body, metadata = given
    head = SimpleNamespace(
        nonce=metadata.get("store-lib-nonce", ""), metadata=metadata, age=1.0, size=len(body)
    )
    bucket: Any = SimpleNamespace(read=lambda key, limit: (head, body[:limit]))
    found = StoredClaim.read(bucket, "key")
    assert found is not None
    assert found.life >= 0
    assert isinstance(found.live, bool)
    return True


def _a_claim(mutator: Mutator) -> tuple[bytes, dict[str, str]]:
    return mutator.data([_CLAIM]), mutator.fields({"store-lib-nonce": "ab", "store-lib-life": "30"})


class _Fault(Exception):
    """As oslo.vmware's, with whatever the server said."""

    def __init__(self, faults: Any, details: Any, msg: str, cause: Any) -> None:
        super().__init__(msg)
        self.fault_list, self.details, self.msg, self.cause = faults, details, msg, cause


def _fault(given: tuple[str, str]) -> bool:
    kind, said = given
    for error in (
        fault_error(kind, said, "moving a to b", _SERVER),
        soap_error(_Fault([kind], {"privilegeId": said}, said, None), "x", _SERVER, [CANARY]),
        soap_error(_Fault([], None, said, ValueError(said)), "x", _SERVER, [CANARY]),
    ):
        assert isinstance(error, StoreError)
        assert len(str(error)) < 3000
    assert CANARY not in str(error)
    return True


def _a_fault(mutator: Mutator) -> tuple[str, str]:
    return mutator.text(["FileNotFound", "ns0:NoPermission"])[:300], mutator.text([f"no {CANARY}"])


def _json(name: str, corpus: list[str], parse: Any) -> Parser:
    return Parser(name, functools.partial(Mutator.json, corpus=corpus), parse, (BackendException,))


pytestmark = pytest.mark.deep("fuzz", always=True)

_REFUSED = (BackendException,)

PARSERS = [
    _json("Swift's listings of objects", [_LISTING], _objects),
    _json("Swift's listings of containers", [_CONTAINERS], _containers),
    _json("Swift's manifests", [_MANIFEST], _manifest),
    _json("Swift's reports", [_REPORT], _report),
    Parser(
        "Keystone's catalogs",
        functools.partial(Mutator.value, corpus=[_CATALOG, _OLD_CATALOG]),
        _catalog,
    ),
    Parser("users of trusts", functools.partial(Mutator.value, corpus=[_USER]), _trust, _REFUSED),
    Parser("decoders", functools.partial(Mutator.value, corpus=_VALUES), _decode),
    Parser(
        "metadata for Glance",
        functools.partial(Mutator.value, corpus=['{"store": "a", "b": ["c", {"d": "e"}]}', "{}"]),
        _metadata,
        (GlanceBackendException,),
    ),
    Parser("S3's errors", _s3_error, _s3_refusal),
    Parser("S3's heads", _fields, _s3_head),
    Parser("claims in S3", _a_claim, _claim),
    Parser("vSphere's faults", _a_fault, _fault),
]


def test_answers(parser: Parser, batches: range, record_property: Any) -> None:
    """An answer is what was asked for, or the one documented error."""
    feed(parser, batches, record_property)
