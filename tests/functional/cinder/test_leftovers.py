"""What killed and cut off processes leave, and what only looks like that, on a real Cinder."""

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Incomplete, Store, Stores
from store_lib.drivers.cinder import incomplete
from store_lib.exceptions import BackendException, InUseByStore
from tests.functional.cinder.conftest import Deployment
from tests.functional.cinder.test_readers import _start_reader

Open = Callable[..., Stores]


def _lose(monkeypatch: pytest.MonkeyPatch, method: str, last: str) -> list[str]:
    """Lose the answer to one request, once it was obeyed; return where its address will be."""
    from keystoneauth1 import exceptions
    from keystoneauth1.session import Session

    asked = Session.request
    lost: list[str] = []

    def request(self: Session, url: str, verb: str, **options: Any) -> Any:
        answer = asked(self, url, verb, **options)
        if not lost and verb == method and url.rstrip("/").rpartition("/")[2] == last:
            lost.append(url)
            raise exceptions.ConnectFailure("cut")
        return answer

    monkeypatch.setattr(Session, "request", request)
    return lost


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return reader.read()


def test_an_attachment_whose_answer_was_lost(
    deployment: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A get tells that the volume is reserved; five minutes later a sweep ends that, and not
    before, as another host may be about to attach it.  An add goes on at once."""
    store = opened(
        it=deployment.lines("file", "cinder_attachment_retry_attempts = 1"),
    )["it"]
    with monkeypatch.context() as patch:
        assert _lose(patch, "POST", "attachments") == []
        made = store.add("it", b"bytes")
    assert _read(store, made.uri) == b"bytes"
    with monkeypatch.context() as patch:
        _lose(patch, "POST", "attachments")
        with pytest.raises(BackendException, match="in state 'reserved'"):
            store.get(made.uri)
    with pytest.raises(InUseByStore, match="a sweep ends it"):
        store.delete(made.uri)
    assert list(store.list_incomplete()) == []
    monkeypatch.setattr(incomplete, "HEARTBEAT_TIMEOUT", 0)
    [left] = store.list_incomplete()
    assert (left.object_id, left.live) == ("it", False)
    assert [each.key for each in store.sweep(0)] == [left.key]
    assert _read(store, made.uri) == b"bytes"
    store.delete(made.uri)


@pytest.mark.parametrize(
    ("how", "kind"), [("killed", "fast"), ("killed", "multi"), ("cut off", "multi")]
)
def test_an_attachment_of_a_reader_that_is_gone(
    how: str, kind: str, deployment: Deployment, opened: Open
) -> None:
    """A reader that was killed, or that could not reach Cinder at its end, leaves an attachment,
    and a device; a sweep ends both, and spares the readers that are at work."""
    store = opened(it=deployment.lines(kind, "transfer_retry_seconds = 0"))["it"]
    made = store.add("it", b"bytes")
    config = str(deployment.directory / "stores.conf")
    if how == "killed":
        reader = _start_reader(config, made.uri)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert store.sweep(0) == []
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
    else:
        with Stores.from_files(config) as other:
            cut_off = other.get(made.uri)
            deployment.cinder.stop()
            cut_off.close()
        deployment.cinder.start()
    with contextlib.ExitStack() as stack:
        if kind == "multi":
            stack.enter_context(store.get(made.uri))
        [left] = store.list_incomplete()
        assert (left.object_id, left.live) == ("it", False)
        assert left.age >= 0
        assert [each.key for each in store.sweep(0)] == [left.key]
        assert len(deployment.cinder.attachments()) == (kind == "multi")
    assert deployment.cinder.loops() == []
    assert _read(store, made.uri) == b"bytes"
    store.delete(made.uri)


def test_an_object_with_an_uploads_metadata_stays(deployment: Deployment, opened: Open) -> None:
    """Whoever may change metadata can make no leftover of it: its name is an object's."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", b"bytes")
    volume = made.uri.rpartition("/")[2]
    writer: Any = store.driver.create("other", 5, nonce="0" * 32, context=None)  # type: ignore[union-attr]
    writer.reserve(1)
    [(other, marks)] = [
        (each["id"], each["metadata"])
        for each in deployment.cinder.volumes()
        if each["id"] != volume
    ]
    deployment.cinder.call("POST", f"/volumes/{volume}/metadata", {"metadata": marks})
    assert [each.key for each in store.list_incomplete()] == [other]
    for each in (made, None):
        left = Incomplete(volume if each else other, "it", None, 0.0)
        assert not store.driver.discard(left, context=None)  # type: ignore[union-attr]
    writer.abort()
    for name in marks:
        deployment.cinder.call("DELETE", f"/volumes/{volume}/metadata/{name}")
    assert _read(store, made.uri) == b"bytes"
    store.delete(made.uri)


def test_a_volume_in_a_state_of_its_own_is_told_at_once(
    deployment: Deployment, opened: Open
) -> None:
    """No advice that does not help, and no wait; once it is available it is read and deleted."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", b"bytes")
    volume = made.uri.rpartition("/")[2]
    transfer = deployment.cinder.call(
        "POST", "/volume-transfers", {"transfer": {"volume_id": volume, "name": "to"}}
    )["transfer"]["id"]
    for call in (store.get, store.delete):
        with pytest.raises(BackendException, match="in state 'awaiting-transfer'") as caught:
            call(made.uri)
        assert type(caught.value) is BackendException
        assert "multiattach" not in str(caught.value)
    deployment.cinder.call("DELETE", f"/volume-transfers/{transfer}")
    assert _read(store, made.uri) == b"bytes"
    store.delete(made.uri)
