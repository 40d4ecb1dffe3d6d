"""The fuzzers find what is wrong, make the input small, and make the same inputs again."""

import functools
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests import deep
from tests.unit.fuzz import fuzzing
from tests.unit.fuzz.fuzzing import BATCH, Hung, Parser, feed, shards
from tests.unit.fuzz.mutation import Mutator, shrunk

_WORDS = functools.partial(Mutator.text, corpus=["some words"], pieces=["bad"])


def _fails(text: str) -> bool:
    if "bad" in text:
        raise KeyError(text)
    return "some" in text


def test_a_fault_is_found_and_made_small() -> None:
    """What raises anything but a refusal fails, with the smallest input and its seed."""
    with pytest.raises(pytest.fail.Exception, match=r"batch \d+: KeyError") as caught:
        feed(Parser("words", _WORDS, _fails), range(100), lambda *_: None)
    assert "the least input: 'bad', of which: KeyError" in str(caught.value)


def test_refusals_are_counted() -> None:
    """A documented error is no fault; the outcomes of the inputs are counted."""
    told: list[Any] = []
    refused = Parser("words", _WORDS, _fails, (KeyError,))
    feed(refused, range(50), lambda *given: told.append(given))
    [(name, text)] = told
    counts = json.loads(text)["counts"]
    assert set(counts) == {"accepted", "passed over", "KeyError"}
    assert sum(counts.values()) == 50 * BATCH
    report = SimpleNamespace(when="call", user_properties=[(name, text)])
    [line] = deep.counted([report, report])
    assert line.startswith(f"words: {100 * BATCH:,} inputs: ")
    assert f"{2 * counts['KeyError']:,} KeyError" in line


def test_what_does_not_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that never ends is stopped, and the error names the input."""
    monkeypatch.setattr(fuzzing, "_HUNG", 0.05)

    def parse(text: str) -> None:
        while True:
            pass

    with pytest.raises(Hung, match="the input at work: '"):
        feed(Parser("words", _WORDS, parse), range(1), lambda *_: None)


def test_memory_is_watched() -> None:
    """A parser that takes a lot of memory fails."""
    sizes = [150 << 20]

    def parse(text: str) -> bytes:
        return b"x" * (sizes.pop() if sizes else 1)

    with pytest.raises(AssertionError, match="KiB more"):
        feed(Parser("words", _WORDS, parse), range(1), lambda *_: None)


def test_a_seed_makes_the_same_inputs() -> None:
    """So that a failure can be made again; another seed makes others."""
    first, again, other = (
        [_WORDS(mutator) for _ in range(BATCH)] for mutator in map(Mutator, (1, 1, 2))
    )
    assert first == again != other


def test_smaller_inputs() -> None:
    """What an input is made of is left out, at any depth, as long as the rest fails."""
    found = shrunk({"a": [1, {"b": "xxbadxx"}], "c": 5}, lambda each: "bad" in str(each))
    assert found == {"a": [{"b": "bad"}]}
    assert shrunk(b"xxbadxx", lambda each: b"bad" in each) == b"bad"


def test_a_deep_run_has_a_million_in_parts() -> None:
    """They are spread over the workers; a usual run is a short one in one part."""
    parser = Parser("words", _WORDS, _fails)
    found = list(shards(parser, deep=True))
    assert sum(len(each) for each in found) * BATCH == 1_000_000
    assert len(found) == 8
    assert [len(each) * BATCH for each in shards(parser, deep=False)] == [2000]
