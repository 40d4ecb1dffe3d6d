"""The s3 driver passes the conformance suite on real servers of two makes."""

import concurrent.futures
import pathlib
import subprocess

import pytest

from store_lib.testing import Profile, Settings, checks_for
from tests.functional.conformance import passed, run_kit, write_config
from tests.functional.s3.places import LOOK_UP, PLACES, SMALL_PARTS, find_place

#: What Swift is put to: all in which it differs from Ceph.
_ON_SWIFT = "racing or second_add or ids_ or list_ or copy_ or ranges_ or delete_ or unfinished"


def _config(name: str, directory: pathlib.Path, request: pytest.FixtureRequest) -> str:
    options = {
        **SMALL_PARTS,
        **find_place(name, request).options,
        # One of its own: a sweep takes the uploads of everybody in a bucket.
        "s3_store_bucket": f"conformance-{directory.name}",
        "s3_store_create_bucket_on_put": True,
    }
    lines = [f"{option} = {value}" for option, value in options.items()]
    return write_config(directory, "s3", *lines)


def test_the_s3_driver_conforms_everywhere(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """Every check passes by http and https, with the bucket in path and host; the rest on Swift.

    All at once: most of the time is spent on waiting for the servers.
    """
    configs = {}
    for number, name in enumerate(PLACES):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(LOOK_UP)
        configs[name] = _config(name, directory, request)
    authorities = str(request.getfixturevalue("ceph").s3_ca)

    def check(name: str) -> subprocess.CompletedProcess[str]:
        directory = pathlib.Path(configs[name]).parent
        return run_kit(
            directory,
            *("--store-config", configs[name], "--store", "it", "--store-no-skip"),
            "--store-big-size=80",
            *(("-k", _ON_SWIFT) if name == "Swift" else ()),
            PYTHONPATH=str(directory),
            SSL_CERT_FILE=authorities,  # for the check that opens a presigned URL
        )

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = dict(zip(configs, pool.map(check, configs), strict=True))
    for name, config in configs.items():
        wanted = len(checks_for(Profile(Settings((config,), "it"))))
        if name == "Swift":
            assert 10 < passed(results[name]) < wanted
        else:
            assert passed(results[name]) == wanted, name
