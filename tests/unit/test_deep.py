"""Which tests a usual run makes, and which `make deep` does."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests import deep

#: Tests by name, and what each is marked with.
TESTS: dict[str, list[Any]] = {
    "usual": [],
    "long": [pytest.mark.deep("kits").mark],
    "both": [pytest.mark.deep("kits", always=True).mark],
}


def _choose(parts: str | None, tests: dict[str, list[Any]] = TESTS) -> list[str]:
    items: list[Any] = [
        SimpleNamespace(nodeid=name, iter_markers=lambda _, marks=marks: iter(marks))
        for name, marks in tests.items()
    ]
    hook = SimpleNamespace(pytest_deselected=lambda items: None)
    config: Any = SimpleNamespace(getoption=lambda name: parts, hook=hook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE_LIB_TEST_DEEP", "")
        deep.choose(config, items)
        assert deep.is_deep("kits") == (parts is not None)
    return [each.nodeid for each in items]


@pytest.mark.parametrize(
    ("parts", "made"),
    [
        (None, ["usual", "both"]),
        ("kits", ["long", "both"]),
        ("all", ["long", "both"]),
        (" kits , ", ["long", "both"]),
    ],
)
def test_tests_are_chosen_by_part(parts: str | None, made: list[str]) -> None:
    """A part's tests are made with that part alone, but for those that are made always."""
    assert _choose(parts) == made


def test_an_unknown_part_names_the_known_ones() -> None:
    """A part that is none ends the run, and says which there are."""
    with pytest.raises(pytest.UsageError, match=r"deep tests: no-such; there are: .*kits"):
        _choose("kits,no-such")


def test_a_test_of_an_unknown_part_is_an_error() -> None:
    """A mark with a part that nobody knows would leave its test out of every run."""
    with pytest.raises(pytest.UsageError, match="odd: no such part of the deep tests"):
        _choose(None, {"odd": [pytest.mark.deep("no-such").mark]})
