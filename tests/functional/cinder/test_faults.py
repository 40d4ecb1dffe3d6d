"""What can go wrong between a store and Cinder: told as documented, in time, and nothing left."""

import contextlib
import io
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Stores
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
    TimeoutError,
)
from tests.functional.cinder.conftest import Deployment
from tests.servers.process import eventually

Open = Callable[..., Stores]

_MIB = 1024 * 1024


class _Pausing:
    """A source that lets somebody do something when it has given some of its bytes."""

    def __init__(self, size: int, at: int, do: Callable[[], None]) -> None:
        self._left = size
        self._at = size - at
        self._do: Callable[[], None] | None = do

    def read(self, amount: int) -> bytes:
        """Return up to ``amount`` bytes."""
        if self._left <= self._at and self._do is not None:
            do, self._do = self._do, None
            do()
        amount = min(amount, self._left)
        self._left -= amount
        return b"x" * amount


def _wait_until_attached(deployment: Deployment) -> None:
    """Wait until what is being added has a volume that is attached here."""
    eventually(
        lambda: [each["status"] for each in deployment.cinder.attachments()] == ["attached"],
        "a volume attached",
    )


def test_a_type_without_a_backend_is_no_room(deployment: Deployment, opened: Open) -> None:
    """A volume that ends in error is told with its state, and removed."""
    store = opened(it=deployment.lines("nowhere"))["it"]
    with pytest.raises(StorageFull, match="ended in state 'error'"):
        store.add("it", b"bytes")


def test_a_refused_creation_is_told(deployment: Deployment, opened: Open) -> None:
    """A backend that fails to make the volume ends the add."""
    store = opened(it=deployment.lines("file"))["it"]
    with (
        deployment.cinder.fault("plain", "refuse-create"),
        pytest.raises(StorageFull, match="ended in state 'error'"),
    ):
        store.add("it", b"bytes")


def test_a_qcow2_file_on_nfs_is_refused(deployment: Deployment, opened: Open) -> None:
    """Its bytes would not be the volume's."""
    store = opened(it=deployment.lines("qcow2"))["it"]
    with pytest.raises(BackendException, match="in qcow2 form"):
        store.add("it", b"bytes")


def test_a_refused_attachment_ends_an_add_and_a_get(deployment: Deployment, opened: Open) -> None:
    """The add leaves no volume, the get no attachment."""
    store = opened(it=deployment.lines("file", "transfer_attempts = 2"))["it"]
    made = store.add("first", b"bytes")
    with deployment.cinder.fault("plain", "refuse-attach"):
        with pytest.raises(RemoteServiceUnavailable, match="make a volume reachable") as caught:
            store.add("second", b"bytes")
        assert caught.value.status is ErrorStatus.EXHAUSTED
        with pytest.raises(RemoteServiceUnavailable, match="make a volume reachable"):
            store.get(made.uri)
        assert deployment.cinder.attachments() == []
    with store.get(made.uri) as reader:
        assert reader.read() == b"bytes"
    store.delete(made.uri)


@pytest.mark.parametrize("step", ["create", "extend"])
def test_a_state_that_lasts_is_given_up(step: str, deployment: Deployment, opened: Open) -> None:
    """After cinder_state_transition_timeout the add ends; a sweep removes what Cinder then has."""
    limit = "cinder_state_transition_timeout = 1"
    stores = opened(it=deployment.lines("file", limit), patient=deployment.lines("file"))
    call = _add if step == "create" else _fill_past_the_end
    with deployment.cinder.fault("plain", f"hold-{step}"):
        with pytest.raises(TimeoutError, match=f"still in state '{step[:5]}") as caught:
            call(stores["it"])
        assert any("Cleaning up failed" in each for each in caught.value.__notes__)
    eventually(
        lambda: {each["status"] for each in deployment.cinder.volumes()} <= {"available", "error"},
        "the volume made after all",
    )
    assert [each.object_id for each in stores["patient"].list_incomplete()] == ["it"]
    assert len(stores["patient"].sweep(0)) == 1


def _add(store: Any) -> None:
    store.add("it", b"bytes")


def _fill_past_the_end(store: Any) -> None:
    """Do what the engine does when a volume's first gibibyte is full."""
    writer = store.driver.create("it", None, nonce=secrets.token_hex(16), context=None)
    try:
        writer.reserve(writer.reserve(1) + 1)
    except StoreError as error:
        try:
            writer.abort()
        except StoreError as trouble:
            error.add_note(f"Cleaning up failed too: {trouble}")
        raise


def test_an_attachment_ended_behind_an_adds_back_fails_it(
    deployment: Deployment, opened: Open
) -> None:
    """Somebody detaches the volume during the upload: nothing is published, nothing left."""
    store = opened(it=deployment.lines("fast"))["it"]

    def detach() -> None:
        _wait_until_attached(deployment)
        [attachment] = deployment.cinder.attachments()
        deployment.cinder.call("DELETE", f"/attachments/{attachment['id']}")

    with pytest.raises(BackendException, match="ended the attachment"):
        store.add("it", _Pausing(4 * _MIB, 2 * _MIB, detach), 4 * _MIB)
    assert list(store.list()) == []


def test_an_attachment_ended_behind_a_readers_back_harms_nothing(
    deployment: Deployment, opened: Open
) -> None:
    """What is read is right or an error; the volume can be read and deleted afterwards."""
    store = opened(it=deployment.lines("fast"))["it"]
    data = bytes(range(256)) * (3 * _MIB // 256)
    made = store.add("it", data)
    with store.get(made.uri) as reader:
        first = reader.read(1)
        [attachment] = deployment.cinder.attachments()
        deployment.cinder.call("DELETE", f"/attachments/{attachment['id']}")
        with contextlib.suppress(StoreError):
            assert first + reader.read() == data
    with store.get(made.uri) as reader:
        assert reader.read() == data
    store.delete(made.uri)


def test_cinder_restarted_during_an_add_costs_nothing(deployment: Deployment, opened: Open) -> None:
    """While the volume is attached nobody asks Cinder; once it is back the add ends well."""
    store = opened(it=deployment.lines("file"))["it"]

    def restart() -> None:
        _wait_until_attached(deployment)
        deployment.cinder.stop()
        deployment.cinder.start()

    made = store.add("it", _Pausing(4 * _MIB, 2 * _MIB, restart), 4 * _MIB)
    with store.get(made.uri) as reader:
        assert reader.read() == b"x" * 4 * _MIB
    store.delete(made.uri)


def test_cinder_gone_at_the_end_fails_the_add(deployment: Deployment, opened: Open) -> None:
    """What cannot be cleaned up then is an incomplete upload, which a sweep removes."""
    store = opened(it=deployment.lines("file", "transfer_attempts = 2"))["it"]
    with pytest.raises(RemoteServiceUnavailable, match="could not be asked") as caught:
        store.add("it", _Pausing(4 * _MIB, 2 * _MIB, deployment.cinder.stop), 4 * _MIB)
    assert "swept" in "".join(caught.value.__notes__)
    deployment.cinder.start()
    [left] = store.list_incomplete()
    assert (left.object_id, left.live) == ("it", False)
    assert [each.key for each in store.sweep(0)] == [left.key]


@pytest.mark.parametrize("lost", ["create", "publish"])
def test_a_lost_answer_makes_no_second_volume(
    lost: str, deployment: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cinder did what it was asked to, and the connection broke: the add finds that out."""
    from keystoneauth1 import exceptions
    from keystoneauth1.session import Session

    store = opened(it=deployment.lines("file"))["it"]
    asked = Session.request
    broken: list[str] = []

    def request(self: Session, url: str, method: str, **options: Any) -> Any:
        answer = asked(self, url, method, **options)
        wanted = ("POST", "volumes") if lost == "create" else ("PUT", None)
        named = "image-it" in str(options.get("json")) or lost == "create"
        last = url.rstrip("/").rpartition("/")[2]
        if not broken and method == wanted[0] and named and last == (wanted[1] or last):
            broken.append(url)
            raise exceptions.ConnectFailure("cut")
        return answer

    monkeypatch.setattr(Session, "request", request)
    made = store.add("it", b"bytes")
    assert len(broken) == 1
    [volume] = deployment.cinder.volumes()
    assert made.uri.endswith(volume["id"])
    store.delete(made.uri)


def test_an_error_of_the_source_leaves_nothing(deployment: Deployment, opened: Open) -> None:
    """The volume that was being filled is detached and removed."""
    store = opened(it=deployment.lines("nfs"))["it"]

    def fail() -> None:
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        store.add("it", _Pausing(4 * _MIB, 2 * _MIB, fail), 4 * _MIB)


def test_adds_at_once_do_not_disturb_each_other(deployment: Deployment, opened: Open) -> None:
    """Several threads fill several volumes on one share, which is unmounted with the last."""
    store = opened(it=deployment.lines("nfs"))["it"]
    made: dict[int, str] = {}

    def add(number: int) -> None:
        made[number] = store.add(f"object {number}", io.BytesIO(bytes([number]) * _MIB * 2)).uri

    threads = [threading.Thread(target=add, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number, uri in made.items():
        with store.get(uri) as reader:
            assert reader.read() == bytes([number]) * _MIB * 2
        store.delete(uri)
    assert len(made) == 3


def test_what_cannot_be_deleted_now_is_told(deployment: Deployment, opened: Open) -> None:
    """A backend that fails to delete leaves a volume in a state that says so."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", b"bytes")
    with deployment.cinder.fault("plain", "refuse-delete"):
        store.delete(made.uri)
        eventually(
            lambda: deployment.cinder.volumes()[0]["status"] == "error_deleting", "the refusal"
        )
    assert store.stat(made.uri).size == 5
    with pytest.raises(StoreError, match="answered 400"):
        store.delete(made.uri)
    path = f"/volumes/{made.uri.rpartition('/')[2]}/action"
    deployment.cinder.call("POST", path, {"os-reset_status": {"status": "available"}})
    store.delete(made.uri)


@pytest.fixture(autouse=True)
def cinder_is_up(deployment: Deployment) -> Iterator[None]:
    """A test that fails with Cinder stopped takes no other one with it."""
    yield
    if not deployment.cinder.running:
        deployment.cinder.start()
