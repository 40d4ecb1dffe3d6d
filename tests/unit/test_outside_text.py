"""Texts from outside, of any length: each regular expression takes time in proportion to them.

The interpreter does nothing else while an expression is at work, so that one text could stop a
whole service, and no time limit would help.
"""

import ast
import functools
import importlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from store_lib.exceptions import BadStoreUri, InvalidObjectId
from store_lib.location import LONGEST_URI, scheme_of
from store_lib.redaction import redact
from tests.unit.memory_driver import memory_store
from tests.unit.test_packaging import ROOT

#: What texts are made of, again and again; the last of a text may be another.
SEEDS = [
    *"a1?&=;:/@.%\\'\"- \0",
    *("?key", "&key=", "://", "a://", "a://b@", "key=v ", "a=1&", "%41", "a.", "a-", "1a", "a1"),
    *("Signature=", "AccessKey'", "Credential=", "Token:", "/.segments/", "bytes ", "0-0/", "\\t"),
    *("0123456789abcdef", ".store_lib-", "store_lib-upload-", "s3.", "us-east-1.", "4;", "7d"),
]
ENDS = ["", "!"]
#: Characters of the longest text, and seconds of processor time that one look at it may take.
LONGEST = 1 << 14
LIMIT = 0.2


def patterns() -> Iterator[tuple[str, str, int, str]]:
    """Yield every regular expression in the library: where it stands, its text, its flags."""
    for path in sorted((ROOT / "store_lib").rglob("*.py")):
        shown = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr != "escape"
            ):
                yield shown, node.func.attr, node.lineno, ast.unparse(node.args[0])


def compiled() -> list[Any]:
    """Return the compiled expressions at the top of modules, with the methods that are used."""
    found = {}
    paths = {path for path, name, _, _ in patterns() if name == "compile" and "testing" not in path}
    for path in sorted(paths):
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        text = (ROOT / path).read_text()
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and (name, value) not in found:
                uses = set(re.findall(rf"\b{name}\.(\w+)\(", text))
                found[name, value] = pytest.param(value, uses, id=f"{path}:{name}")
    return list(found.values())


def test_expressions_are_kept_where_this_test_finds_them() -> None:
    """Outside of the test kit an expression is compiled at the top of a module, or is literal."""
    literal = re.compile(r"r?b?(['\"]).*\1\Z", re.DOTALL)
    unknown = [
        each
        for each in patterns()
        if each[1] != "compile" and "testing" not in each[0] and not literal.match(str(each[3]))
    ]
    assert unknown == []


def inline() -> list[Any]:
    """Return the expressions that are written where they are used."""
    return [
        pytest.param(re.compile(ast.literal_eval(text), re.DOTALL), {name}, id=f"{path}:{line}")
        for path, name, line, text in patterns()
        if name != "compile" and "testing" not in path
    ]


def grows(
    look: Callable[[str], object], seeds: Sequence[str] = SEEDS, longest: int = LONGEST
) -> None:
    """Look at short and long texts; what takes too long is found before it is very long.

    Twice the length takes three times as long at most; times below a millisecond say nothing.
    """
    limit = max(LIMIT, longest / (1 << 20)) * (1 if sys.gettrace() is None else 3)
    for seed in seeds:
        for end in ENDS:
            before = 0.0
            for size in (1024, 4096, longest // 2, longest):
                text = (seed * (size // len(seed)))[: size - 1] + end
                took = _seconds(look, text)
                if size == longest and took > max(0.001, 3 * before):  # or it was disturbed
                    took = min(took, *(_seconds(look, text) for _ in range(9)))
                    assert took <= max(0.001, 3 * before), (took, before, seed, end)
                assert took < limit, (took, size, seed, end)
                before = took


def _seconds(look: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    look(text)
    return time.thread_time() - began


@pytest.mark.parametrize(("pattern", "uses"), [*compiled(), *inline()])
def test_an_expression_takes_time_in_proportion(pattern: Any, uses: set[str]) -> None:
    """Searched for, matched or replaced, as the library does it, whatever the text."""
    assert uses
    empty = pattern.pattern[:0]

    def look(text: str) -> None:
        given: Any = text.encode() if isinstance(empty, bytes) else text
        for use in uses:
            if use == "sub":
                pattern.sub(empty, given)
            else:
                getattr(pattern, use)(given)

    grows(look)


@pytest.mark.parametrize("cut", [False, True])
def test_redaction_takes_time_in_proportion(cut: bool) -> None:
    """Whatever the text; a MiB takes less than a second."""
    grows(functools.partial(redact, cut=cut))
    grows(functools.partial(redact, cut=cut), ["?key", "&key=", "a://", "="], 1 << 20)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://user:sec", "see http://***@"),
        ("http://user:sec", "http://***@"),
        ("see http://host/ and th", "see http://host/ and th"),
        ("a http://u:p@h/ b file:///x", "a http://***@h/ b file:///x"),
        ("x?token=sec", "x?token=***"),
    ],
)
def test_what_was_cut_off_may_have_been_a_login(text: str, shown: str) -> None:
    """A URI at the end of a text that was cut is taken for one with a login."""
    assert redact(text, cut=True) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("file:///x,http://u:s@h/", "file:///x,http://***@h/"),
        ("://u:s@h/x", "://***@h/x"),
        ("?a=1&key=s=s&b=2;sig=s#f", "?a=1&key=***&b=2;sig=***#f"),
        ("'x?key=s' and key=shown", "'x?key=***' and key=shown"),
        ("?key=&?x?token=s", "?key=***&?x?token=***"),
    ],
)
def test_redaction_of_several(text: str, shown: str) -> None:
    """Each secret of a text goes, and nothing that is none."""
    assert redact(text) == shown


def test_uris_and_ids_have_a_longest() -> None:
    """What is longer than any use is refused before it is looked at."""
    assert scheme_of("file://" + "x" * (LONGEST_URI - 7)) == "file"
    with pytest.raises(BadStoreUri, match="8192 characters, got 8193"):
        scheme_of("file://" + "x" * (LONGEST_URI - 6))
    store, _ = memory_store()
    with pytest.raises(InvalidObjectId, match="too long"):
        store.add("x" * (LONGEST_URI + 1), b"")
