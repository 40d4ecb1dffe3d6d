"""A server that sends a client elsewhere: to another host, another region, or in a circle."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from store_lib import Store
from store_lib.drivers.s3 import S3Driver
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from tests.s3_faults import refusal, xml_answer
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.unit.drivers.s3.server import S3Server

DATA = b"x" * 1000


def _calls(store: Store, uri: str) -> list[Callable[[], object]]:
    return [
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: store.add("new", [DATA], len(DATA)),
        lambda: store.add("new", [DATA * 200]),
        lambda: store.copy(uri, "new"),
        lambda: list(store.list()),
        lambda: list(store.list_incomplete()),
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("region", [None, "eu-west-9", "not a region"])
def test_a_redirect_is_an_error_after_few_requests(
    store: Store, s3: S3Server, status: int, region: str | None
) -> None:
    """Redirects to the same server end soon; the error names the region that it named."""
    place = {"Location": "https://user:pw@elsewhere.example:81/box?secret"}
    uri = f"{store.driver.url_prefix}/id"  # type: ignore[union-attr]
    s3.before = [lambda _: Reply(status, headers={**place, "x-amz-bucket-region": region})]
    for call in _calls(store, uri):
        s3.server.requests.clear()
        with pytest.raises(BackendException) as caught:
            call()
        assert caught.value.status is ErrorStatus.PERMANENT
        text = str(caught.value)
        assert "secret" not in text
        assert "pw" not in text
        if status == 301:
            named = "to eu-west-9," if region == "eu-west-9" else "to the bucket's"
            assert f"Set s3_store_region_name {named}" in text
        else:
            assert "https://elsewhere.example:81." in text
        # Each again for another region; a HEAD also as a GET, whose answer would say more; a claim
        # is looked at and taken back.
        assert len(s3.server.requests) <= 10


def test_a_region_that_the_server_names_is_used(store: Store, s3: S3Server) -> None:
    """As Amazon names it: in the body, or where that is missing in the head; then it is known."""
    s3.store("id", DATA)

    def elsewhere(request: Request) -> Reply | None:
        if "/eu-west-9/s3/" in request.headers["authorization"]:
            return None
        if request.method == "HEAD":
            return Reply(400, headers={"x-amz-bucket-region": "eu-west-9"})
        return xml_answer(
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-west-9'"
            "</Message><Region>eu-west-9</Region></Error>",
            400,
        )

    s3.before = [elsewhere]
    uri = f"{store.driver.url_prefix}/id"  # type: ignore[union-attr]
    with store.get(uri) as reader:
        assert reader.read() == DATA
    assert store.stat(uri).size == len(DATA)
    added = store.add("new", [DATA * 200])
    store.delete(added.uri)
    assert set(s3.objects) == {"id"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, headers={"x-amz-bucket-region": "eu-west-9"}),
        refusal(301, "PermanentRedirect"),
        xml_answer(
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-9</Region></Error>",
            400,
        ),
    ],
)
def test_the_option_for_the_region_is_named(store: Store, s3: S3Server, reply: Reply) -> None:
    """So is the region, where the server names it and does not want it after all."""
    s3.before = [lambda _: reply]
    for call in _calls(store, f"{store.driver.url_prefix}/id"):  # type: ignore[union-attr]
        with pytest.raises(BackendException, match="Set s3_store_region_name") as caught:
            call()
        named = b"eu-west-9" in reply.body or "x-amz-bucket-region" in reply.headers
        assert ("eu-west-9, the bucket's region" in str(caught.value)) is named


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_of_another_host_is_told(tmp_path: Path, trusted: bool) -> None:
    """At once, with the reason; so is one of an authority that nobody knows."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(file := tmp_path / "ca"))
    with ScriptedServer(tls=context) as server:
        options = {
            "s3_store_host": server.url,
            "s3_store_bucket": "box",
            "s3_store_access_key": "a",
            "s3_store_secret_key": "s",
            "s3_store_cacert": str(file),
        }
        driver = S3Driver("it", StoreOptions.of(S3Driver.options, **options))
        driver.configure()
        told = "other.example|127.0.0.1.*by a name that its" if trusted else "s3_store_cacert"
        for call in (driver.stat, lambda *a, **k: driver.read(*a, 0, None, **k), driver.delete):
            with pytest.raises(StoreError, match=told) as caught:
                call(driver.parse(f"{driver.url_prefix}/id"), context=None)
            assert type(caught.value) is RemoteServiceUnavailable
            assert caught.value.status is ErrorStatus.PERMANENT
        driver.close()
