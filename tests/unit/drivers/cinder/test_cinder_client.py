"""Cinder's answers, whatever they are: volumes, attachments, listings, types."""

import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.drivers.cinder import CinderDriver, client
from store_lib.drivers.cinder.client import Cinder, CinderClients
from store_lib.exceptions import BackendException, RemoteServiceUnavailable, StoreError
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, Request, ScriptedServer

_VOLUME = {
    "id": "it",
    "name": None,
    "status": "in-use",
    "size": 1,
    "metadata": {"a": "b"},
    "volume_type": "fast",
    "multiattach": True,
    "encrypted": False,
    "attachments": [{"attachment_id": "one", "host_name": None, "device": None}],
    "created_at": "2026-01-01T00:00:00.000000",
    "updated_at": None,
}
_ATTACHMENT = {
    "id": "one",
    "status": "attached",
    "instance": None,
    "attached_at": "2026-01-01T00:00:00.000000",
    "connection_info": {"driver_volume_type": "iscsi", "auth_password": "c4nary"},
}

#: Values that are none of what they stand for.
_WRONG: dict[str, list[Any]] = {
    "id": [None, 1, ["it"], {}],
    "status": [None, 1, ["in-use"]],
    "size": [None, [None], "x", "1", -1, 1.5, True, 2**40, {}],
    "name": [1, ["a"]],
    "metadata": [["a"], "a", 1, {"a": ["b"]}, {"a": 1}],
    "volume_type": [1, {}],
    "multiattach": ["false", 1, []],
    "encrypted": ["", 0],
    "attachments": [None, "a", {}, [None], ["a"], [{}], [{"attachment_id": 1}]],
    "updated_at": ["now", 1],
    "created_at": ["now", 1, ["x"], "9" * 40],
    "instance": [1, ["a"]],
    "attached_at": ["now", 1],
    "connection_info": ["a", ["c4nary"], 1],
}


def _ask(answer: Any, ask: Callable[[Cinder], Any]) -> Any:
    def handler(request: Request) -> Reply:
        return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    with ScriptedServer(handler) as server:
        options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=server.url)
        with contextlib.closing(CinderClients("it", options)) as clients:
            context = SimpleNamespace(auth_token="t", project_id="p")
            return ask(clients.get(context))


def _wrong(good: dict[str, Any]) -> list[dict[str, Any]]:
    found = [{**good, name: value} for name in good for value in _WRONG[name]]
    needed = ("id", "status", "size", "attachments")
    return found + [
        {key: value for key, value in good.items() if key != name}
        for name in needed
        if name in good
    ]


def test_what_is_good_is_taken() -> None:
    """A volume and an attachment as Cinder describes them."""
    volume = _ask({"volume": _VOLUME}, lambda cinder: cinder.get("it"))
    assert (volume.id, volume.name, volume.size, volume.hosts) == ("it", "", 2**30, [None])
    assert volume.updated_at == 1767225600.0
    bare = {key: _VOLUME[key] for key in ("id", "status", "size", "attachments")}
    for further in ({}, {"multiattach": None, "encrypted": None, "metadata": {"a": None}}):
        volume = _ask({"volume": {**bare, **further}}, lambda cinder: cinder.get("it"))
        assert (volume.multiattach, volume.encrypted, volume.updated_at) == (False, False, None)
    [attachment] = _ask({"attachments": [_ATTACHMENT]}, lambda cinder: cinder.attachments("it"))
    assert (attachment.id, attachment.status, attachment.attached_at) == (
        "one",
        "attached",
        1767225600.0,
    )
    assert "c4nary" not in repr(attachment)


def test_volumes_that_are_none() -> None:
    """Each field of another type, or out of bounds, or missing, is one error that may pass."""
    bad = _wrong(_VOLUME)
    assert len(bad) > 40
    told: list[Any] = []

    def ask_all(cinder: Cinder) -> None:
        for _ in bad:
            with pytest.raises(RemoteServiceUnavailable, match="an answer of Cinder's"):
                told.append(cinder.get("it"))

    answers = iter(bad)
    with ScriptedServer(lambda _: _reply({"volume": next(answers)})) as server:
        _with(server, ask_all)
    assert told == []


def test_a_volume_is_found_by_its_name() -> None:
    """The one that an upload made, and not one of that name that is being deleted."""
    going = {**_VOLUME, "id": "going", "status": "deleting"}
    for volumes, expected in (([going, _VOLUME], "it"), ([going], None), ([], None)):
        volume = _ask({"volumes": volumes}, lambda cinder: cinder.find("name"))
        assert getattr(volume, "id", None) == expected


def test_attachments_that_are_none() -> None:
    """So it is with attachments; what leads to the storage is not shown."""
    bad = _wrong(_ATTACHMENT)
    answers = iter(bad)

    def ask_all(cinder: Cinder) -> None:
        for _ in bad:
            with pytest.raises(RemoteServiceUnavailable, match="an answer of Cinder's") as caught:
                cinder.attachments("it")
            assert "c4nary" not in str(caught.value)

    with ScriptedServer(lambda _: _reply({"attachments": [next(answers)]})) as server:
        _with(server, ask_all)


@pytest.mark.parametrize(
    "ask",
    [
        lambda cinder: cinder.get("it"),
        lambda cinder: cinder.find("it"),
        lambda cinder: list(cinder.volumes()),
        lambda cinder: cinder.attachments("it"),
        lambda cinder: cinder.create("it", 1, None, {}),
        lambda cinder: cinder.create_attachment("it", "ro", 0.0),
        lambda cinder: cinder.update_attachment("it", {}),
        lambda cinder: cinder.has_type("it"),
        lambda cinder: cinder.default_type(),
        lambda cinder: cinder.has_snapshots("it"),
    ],
)
@pytest.mark.parametrize("answer", [None, [], 1, "x", {}, {"volume": 1}, {"volumes": 1}])
def test_answers_that_are_none(ask: Callable[[Cinder], Any], answer: Any) -> None:
    """An answer without what was asked for is an error, whatever it is."""
    with pytest.raises(StoreError):
        _ask(answer, ask)


def test_a_token_stays_with_cinder() -> None:
    """The link to a listing's next page is followed on Cinder's own server alone."""
    with ScriptedServer(lambda _: _reply({"volumes": []})) as other:
        links = [{"rel": "next", "href": f"{other.url}/volumes/detail?marker=it"}]
        page = {"volumes": [_VOLUME], "volumes_links": links}
        with pytest.raises(BackendException, match="which the token is not sent to") as caught:
            _ask(page, lambda cinder: cinder.find("it"))
        assert other.url in str(caught.value)
        assert other.requests == []


def test_a_list_that_does_not_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same page again and again is an error, and no endless list."""
    monkeypatch.setattr(client, "_PAGE", 1)
    with pytest.raises(BackendException, match="ends with it again"):
        _ask({"volumes": [_VOLUME]}, lambda cinder: list(cinder.volumes()))


def _reply(answer: Any) -> Reply:
    return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


def _with(server: ScriptedServer, ask: Callable[[Cinder], Any]) -> None:
    options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=server.url)
    with contextlib.closing(CinderClients("it", options)) as clients:
        ask(clients.get(SimpleNamespace(auth_token="t", project_id="p")))
