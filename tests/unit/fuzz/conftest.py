"""Makes a test of each parser of a module of fuzzers, several for one in a deep run."""

import pytest

from tests import deep
from tests.unit.fuzz.fuzzing import shards


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hand every parser of the module's ``PARSERS`` to the test."""
    if "parser" not in metafunc.fixturenames:
        return
    is_deep = "fuzz" in deep.chosen_parts(metafunc.config)
    metafunc.parametrize(
        ("parser", "batches"),
        [
            pytest.param(each, batches, id=f"{each.name.replace(' ', '-')}-{batches.start}")
            for each in metafunc.module.PARSERS
            for batches in shards(each, is_deep)
        ],
    )
