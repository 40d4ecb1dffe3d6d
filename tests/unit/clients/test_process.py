"""What belongs to one process, and hosts as several drivers parse them."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from store_lib.clients.hosts import join_host, split_host
from store_lib.clients.process import DeferredClose, LiveObjects, PerProcess, SingleFlight
from store_lib.clients.tls import Tls
from store_lib.drivers.vmware.options import OPTIONS
from store_lib.exceptions import NotFound
from store_lib.options import StoreOptions


def in_a_child(function: Callable[[], object]) -> str:
    """Return the representation of what ``function`` returns in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


_PIDS = PerProcess(os.getpid)


def test_a_child_makes_its_own() -> None:
    """What a process has made it keeps; a child makes another, and its parent's stays."""
    assert _PIDS.get() == _PIDS.get() == os.getpid()
    assert in_a_child(_PIDS.get) not in (str(os.getpid()), "None", "")
    assert _PIDS.take() == os.getpid()
    assert _PIDS.take() is None


def test_a_child_does_not_close_what_it_inherits() -> None:
    """There is nothing for a child to take that it has not made."""
    _PIDS.get()
    assert in_a_child(_PIDS.take) == "None"
    _PIDS.take()


class Connection:
    """Remembers what was done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def forget(self) -> None:
        self.done.append("forgotten")


_LIVE: LiveObjects[Connection] = LiveObjects(in_child=Connection.forget)


def test_a_child_is_told_of_live_objects() -> None:
    """In a forked child the function is called with every object that is alive, and only there."""
    kept, dropped = Connection(), Connection()
    _LIVE.add(kept)
    _LIVE.add(dropped)
    del dropped
    assert list(_LIVE) == [kept]
    assert in_a_child(lambda: kept.done) == "['forgotten']"
    assert kept.done == []


def test_a_failure_does_not_spare_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """What is raised for one object is logged, and the rest have their turn."""
    live: LiveObjects[Connection] = LiveObjects()
    connections = [Connection(), Connection()]

    def fail(connection: Connection) -> None:
        connection.forget()
        raise NotFound("no such thing")

    for each in connections:
        live.add(each)
    with caplog.at_level(logging.ERROR):
        live._call(fail)
    assert [each.done for each in connections] == [["forgotten"]] * 2
    assert len(caplog.records) == 2


def test_the_end_of_a_process() -> None:
    """At the interpreter's end the function is called, for objects that nobody has closed."""
    program = (
        "from store_lib.clients.process import LiveObjects\n"
        "class Login:\n    pass\n"
        "live = LiveObjects(at_exit=lambda login: print('logged out'))\n"
        "login = Login()\nlive.add(login)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout == b"logged out\n"


def test_those_who_wait_share_a_failure() -> None:
    """Of threads that need a thing at once one tries, and all get its error; the next one tries."""
    flight, came, attempts = SingleFlight(), threading.Barrier(4), [0]
    errors: list[NotFound] = []

    def attempt() -> str:
        attempts[0] += 1
        raise NotFound("no server")

    def work() -> None:
        came.wait(10)
        try:
            flight.run(lambda: None, attempt)
        except NotFound as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    with flight.lock:
        for each in threads:
            each.start()
        came.wait(10)
        time.sleep(0.1)  # until all of them wait for the lock
    for each in threads:
        each.join()
    assert attempts == [1]
    assert [str(each) for each in errors] == ["no server"] * 3
    assert len({id(each) for each in errors}) == 3
    with pytest.raises(NotFound):
        flight.run(lambda: None, attempt)
    assert attempts == [2]


def test_an_outcome_is_shared() -> None:
    """What an attempt gave is returned to all later callers, and nothing is tried again."""
    flight, values = SingleFlight(), [7]
    assert flight.run(lambda: values[0], lambda: 8) == 7
    assert flight.run(lambda: None, lambda: 8) == 8


def test_the_last_user_closes() -> None:
    """A thing is closed once, when it is to be closed and the last user has left."""
    closed: list[str] = []
    thing = DeferredClose(lambda: closed.append("closed"))
    assert thing.enter()
    assert thing.enter()
    thing.leave()
    thing.close()
    assert (thing.closing, thing.used, closed) == (True, True, [])
    assert not thing.enter()
    assert closed == []
    thing.leave()
    thing.close()
    assert closed == ["closed"]
    assert not thing.enter()


def test_a_thing_without_users_is_closed_at_once() -> None:
    """Nobody has to leave, and a child can forget the thing without closing it."""
    closed: list[str] = []
    thing, inherited = (DeferredClose(lambda: closed.append("closed")) for _ in range(2))
    thing.close()
    assert closed == ["closed"]
    inherited.enter()
    inherited.forget()
    inherited.leave()
    inherited.close()
    assert closed == ["closed"]


def _is_same() -> bool:
    return _TLS.context is _INHERITED


_TLS = Tls(
    "a",
    StoreOptions.of(OPTIONS),
    authorities="vmware_ca_file",
    insecure="vmware_insecure",
    peers="servers",
)
_INHERITED = _TLS.context


def test_a_child_has_a_tls_context_of_its_own() -> None:
    """A context that another thread had locked at the fork is not used by the child."""
    assert _TLS.context is _INHERITED
    assert in_a_child(_is_same) == "False"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("Example.org", "example.org", 443),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:DB8:0::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_hosts_are_taken_apart(text: str, host: str, port: int) -> None:
    """A host comes in lower case and without brackets, with its port or the default one."""
    assert split_host(text, 443) == (host, port)
    assert split_host(join_host(host, port, 443), 443) == (host, port)


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:65536", "a b", "[::1", "[fe80::1%a]"])
def test_what_is_no_host_is_refused(text: str) -> None:
    """Anything else is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=r"^(a|an) "):
        split_host(text, 443)
