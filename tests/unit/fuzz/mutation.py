"""Makes bad inputs of good ones, by chance, and the same ones again from the same seed.

hypothesis takes 1.5 ms to make a text or a JSON value, which for a million inputs of each parser
are many hours.  This takes some microseconds, begins with what is valid, and shrinks simply.
"""

import json
import random
import string
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: The secret of the inputs that have one.
CANARY = "sEcReT-c4nary"

#: Characters of the longest input, with few exceptions.
LONGEST = 20_000

#: What parsers are known to stumble over.
_PIECES = [
    *("", " ", "\t", "\0", "\r\n", "\n", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e"),
    *("é", "ß", "İ", "٣", "²", "Ⅷ", "\U0001f600", "e\u0301", "\ud800", "\udcff", "\udfff"),
    *("%", "%00", "%2F", "%2e%2e", "%ff", "%zz", "%C3%A9", "%25", "+", "\\", "'", '"', "`", "$"),
    *(
        ".",
        "..",
        "/",
        "//",
        "/../",
        "/./",
        "\\..\\",
        "~",
        ":",
        "::",
        "://",
        "@",
        "?",
        "#",
        "&",
        ";",
    ),
    *(",", "=", "[", "]", "{", "}", "(", ")", "<", ">", "|", "*", "-", "_", "!", "^"),
    *("0", "-0", "-1", "+1", "00", "1_0", "1e5", "1E999", "0x1f", "NaN", "Infinity", "1.5", "256"),
    *(str(2**31), str(2**32), str(2**53 + 1), str(2**63 - 1), str(2**63), str(2**64), "9" * 20),
    *("null", "true", "None", "bytes", "chunked", "identity", "http", "https", "file", "[::1]"),
    *("localhost", "127.0.0.1", "0x7f.1", "1970-01-01T00:00:00", "9999-12-31T23:59:59+14:00"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 99999 99:99:99 +9999", "%(x)s", "{0}", "%s"),
    *(
        "\r\nX-More: 1\r\n",
        "<!--",
        "]]>",
        "&lt;",
        "&#0;",
        "<?xml?>",
        "${x}",
        "$x",
        "--",
        ".segments/",
    ),
]
#: Rare, as they are long.
_LONG = ["9" * 5000, "-" + "9" * 5000, "[" * 3000, '{"a":' * 3000, "(" * 5000, "a" * 9000]

#: What stands in JSON in place of what was expected.
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**25, 1.5, -0.0, 1e308),
    *("", "0", "x", "..", "é", "\0", "\ud800", "9" * 400, "None", CANARY),
    *([], [None], {}, {"": None}, [[]], [{}], {"name": {"name": []}}),
    *(float("nan"), float("inf"), float("-inf")),
]

_EDITS = 13


class Mutator:
    """Makes inputs; each seed gives a sequence of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._chance = self.random.random

    def below(self, number: int) -> int:
        """Return a number from 0 on, less than ``number``, which is 1 or more."""
        return int(self._chance() * number)

    def one(self, items: Sequence[T]) -> T:
        """Return one of several."""
        return items[int(self._chance() * len(items))]

    def text(self, corpus: Sequence[str], pieces: Sequence[str] = ()) -> str:
        """Return one of the texts after some edits.

        :param pieces: what this kind of text is made of, besides what all are
        """
        text = self.one(corpus)
        for _ in range(self._edits()):
            text = self._edit(text, corpus, pieces)
        return text[:LONGEST]

    def data(self, corpus: Sequence[bytes], pieces: Sequence[str] = ()) -> bytes:
        """Return some bytes of the corpus after some edits."""
        texts = [each.decode("latin-1") for each in corpus]
        text = self.text(texts, pieces)
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")

    def value(self, corpus: Sequence[str]) -> Any:
        """Return a JSON value after some edits; the corpus has them as JSON."""
        value = json.loads(self.one(corpus))
        for _ in range(self._edits()):
            value = self._edit_value(value)
        return value

    def json(self, corpus: Sequence[str]) -> bytes:
        """Return JSON after edits of the value, of the text, or of both."""
        kind = self.below(4)
        if kind == 0:
            return self.data([self.one(corpus).encode()])
        body = json.dumps(self.value(corpus), ensure_ascii=kind != 2).encode(
            "utf-8", "surrogatepass"
        )
        return self.data([body]) if kind == 1 else body

    def fields(self, given: dict[str, str], pieces: Sequence[str] = ()) -> dict[str, str]:
        """Return named texts after edits of some, of which some may be left out."""
        found = dict(given)
        for _ in range(max(1, self._edits())):
            name = self.one(list(given))
            if self._chance() < 0.15:
                found.pop(name, None)
            else:
                found[name] = self.text([found.get(name, ""), *given.values()][:2], pieces)
        return found

    def _edits(self) -> int:
        """Return how many edits to make: few more often than many, and seldom none."""
        chance = self._chance()
        if chance > 0.97:
            return 0
        return 1 if chance < 0.5 else 2 if chance < 0.75 else 3 if chance < 0.9 else self.below(8)

    def _edit(self, text: str, corpus: Sequence[str], pieces: Sequence[str]) -> str:
        kind = self.below(_EDITS)
        at = self.below(len(text) + 1)
        end = min(len(text), at + 1 + self.below(8))
        if kind == 0:
            return text[:at]
        if kind == 1:
            return text[at:]
        if kind == 2:
            return text[:at] + text[end:]
        if kind == 3:
            return text[:end] + text[at:]  # twice
        if kind == 4:
            other = self.one(corpus)
            return text[:at] + other[self.below(len(other) + 1) :]
        if kind == 5:
            return text[:at] + chr(self.below(0x250)) + text[at + 1 :]
        if kind == 6:
            return self._renumbered(text, at)
        if kind == 7:
            turned = text[at:end]
            return text[:at] + (turned.upper() if turned.islower() else turned.lower()) + text[end:]
        if kind == 8 and self._chance() < 0.02:
            piece = text[at:end] if self._chance() < 0.5 else self.one(_LONG)
            return text[:at] + piece * max(1, min(2000, 9000 // max(1, len(piece)))) + text[end:]
        if kind == 9:
            return text[:at] + "".join(f"%{ord(each) & 255:02x}" for each in text[at:end])
        piece = self.one(pieces) if pieces and self._chance() < 0.4 else self.one(_PIECES)
        return text[:at] + piece + text[end if kind == 10 else at :]

    def _renumbered(self, text: str, at: int) -> str:
        """Put another number in place of the first one behind ``at``."""
        start = next((n for n in range(at, len(text)) if text[n] in string.digits), None)
        if start is None:
            return text + str(self.below(1 << 40))
        end = start
        while end < len(text) and text[end] in string.digits:
            end += 1
        digits = str(self.below(1 << 70) >> self.below(70)) if self.below(3) else self.one(_PIECES)
        return text[:start] + digits + text[end:]

    def _edit_value(self, value: Any) -> Any:
        holder, key = self._place(value)
        if holder is None:
            return self._other(value)
        kind = self.below(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(self.below(len(holder) + 1), holder[key])
        elif kind == 1:
            holder[self.one(["", "name", "links", "id", str(key).upper()])] = holder.pop(key)
        elif kind == 2:
            holder[key] = [holder[key]] if self._chance() < 0.5 else {"name": holder[key]}
        else:
            holder[key] = self._other(holder[key])
        return value

    def _place(self, value: Any) -> tuple[Any, Any]:
        """Return what holds some value within another, and where there."""
        holder, key = None, None
        while isinstance(value, (dict, list)) and value and (holder is None or self.below(4)):
            holder = value
            key = self.one(list(value)) if isinstance(value, dict) else self.below(len(value))
            value = value[key]
        return holder, key

    def _other(self, value: Any) -> Any:
        if isinstance(value, str) and self.below(2):
            return self.text([value])
        if isinstance(value, (int, float)) and self.below(3) == 0:
            return self.below(1 << 70) >> self.below(70)
        if self._chance() < 0.002:
            deep: Any = None
            for _ in range(400):
                deep = [deep]
            return deep
        other = self.one(_VALUES)
        return json.loads(json.dumps(other)) if isinstance(other, (list, dict)) else other


def shrunk(found: Any, fails: Callable[[Any], bool], tries: int = 3000) -> Any:
    """Return a smaller input that fails too, if there is one: pieces are left out as they can."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(found):
            tries -= 1
            if tries < 0:
                return found
            if fails(candidate):
                found, smaller = candidate, True
                break
    return found


def _smaller(value: Any) -> Iterator[Any]:
    if isinstance(value, (str, bytes, list)):
        size = len(value) // 2
        while size:
            for at in range(0, len(value) - size + 1, size):
                yield value[:at] + value[at + size :]
            size //= 2
    if isinstance(value, (list, tuple)):
        for at, each in enumerate(value):
            for other in _smaller(each):
                yield type(value)([*value[:at], other, *value[at + 1 :]])
    if isinstance(value, dict):
        for name in value:
            yield {each: value[each] for each in value if each != name}
        for name, each in value.items():
            for other in _smaller(each):
                yield {**value, name: other}
