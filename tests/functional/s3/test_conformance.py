"""The s3 driver passes the conformance suite on real servers of two makes."""

import pathlib
import re
import uuid

import pytest

from store_lib.testing import Profile, Settings, checks_for
from tests.functional.conformance import (
    configurations,
    passed,
    run_kit,
    write_config,
    write_inventory,
)
from tests.functional.s3.places import LOOK_UP, SMALL_PARTS, find_place
from tests.s3_faults import refusal
from tests.scripted_server import ScriptedServer
from tests.servers.ceph import Ceph
from tests.unit.drivers.s3.server import S3Server

#: What Swift is put to: all in which it differs from Ceph.
_ON_SWIFT = "racing or second_add or ids_ or list_ or cop or ranges_ or delete_ or incomplete"


def _config(name: str, bucket: str, directory: pathlib.Path, request: pytest.FixtureRequest) -> str:
    options = {
        **SMALL_PARTS,
        **find_place(name, request).options,
        # One of its own: a sweep takes the uploads of everybody in a bucket.
        "s3_store_bucket": bucket,
        "s3_store_create_bucket_on_put": True,
    }
    lines = [f"{option} = {value}" for option, value in options.items()]
    return write_config(directory, "s3", *lines)


#: The keys of all objects and of all uploads in parts, asked of the server itself.
_LOOK = (
    "import boto3, botocore.config",
    "client = boto3.client('s3', endpoint_url={url!r}, aws_access_key_id={key!r},",
    "    aws_secret_access_key={secret!r}, region_name='us-east-1',",
    "    config=botocore.config.Config(s3={{'addressing_style': 'path'}}))",
    "bucket = {bucket!r}",
)
_NAMES = (
    "[*(each['Key'] for each in client.list_objects_v2(Bucket=bucket).get('Contents', ())), "
    "*(each['UploadId'] for each in client.list_multipart_uploads(Bucket=bucket)"
    ".get('Uploads', ()))]"
)


def _look_into(directory: pathlib.Path, bucket: str, server: Ceph) -> str:
    values = {
        "url": server.s3_endpoint,
        "key": server.s3_access_key,
        "secret": server.s3_secret_key,
        "bucket": bucket,
    }
    return write_inventory(directory, _NAMES, *(line.format(**values) for line in _LOOK))


def _run(
    name: str, profile: str, directory: pathlib.Path, request: pytest.FixtureRequest, *more: str
) -> tuple[int, int]:
    """Return how many checks passed, and how many there are."""
    (directory / "sitecustomize.py").write_text(LOOK_UP)
    bucket = f"conformance-{uuid.uuid4()}"
    config = _config(name, bucket, directory, request)
    ceph = request.getfixturevalue("ceph")
    if name != "Swift":
        more += ("--store-inventory", _look_into(directory, bucket, ceph))
    result = run_kit(
        directory,
        *("--store-config", config, "--store", "it", "--store-no-skip", "--store-big-size=80"),
        *more,
        profile=profile,
        PYTHONPATH=str(directory),
        SSL_CERT_FILE=str(ceph.s3_ca),  # for the check that opens a presigned URL
    )
    return passed(result), len(checks_for(Profile(Settings((config,), "it"))))


@pytest.mark.parametrize(
    ("name", "profile"), configurations(["Ceph, http, path"], ["Ceph, https, virtual"])
)
def test_the_s3_driver_conforms(
    name: str, profile: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """Every check passes by http and https, with the bucket in path and host."""
    found, wanted = _run(name, profile, tmp_path, request)
    assert found == wanted


@pytest.mark.parametrize("profile", ["short", pytest.param("long", marks=pytest.mark.deep("kits"))])
def test_the_s3_driver_conforms_on_swift(
    profile: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """The checks pass in which Swift's S3 interface differs from Ceph's."""
    found, wanted = _run("Swift", profile, tmp_path, request, "-k", _ON_SWIFT)
    assert 10 < found < wanted


def test_a_server_without_a_listing_of_uploads(tmp_path: pathlib.Path) -> None:
    """Where ListMultipartUploads is missing one check says so, and the others pass."""
    with ScriptedServer() as server:
        there = S3Server(server)
        there.before.append(
            lambda request: (
                refusal(501, "NotImplemented")
                if request.method == "GET" and "?uploads" in request.target
                else None
            )
        )
        lines = [f"s3_store_host = {server.url}", "s3_store_bucket = box"]
        lines += ["s3_store_access_key = access-key", "s3_store_secret_key = secret-key"]
        lines += ["s3_store_bucket_url_format = path"]
        config = write_config(tmp_path, "s3", *lines)
        result = run_kit(
            tmp_path,
            *("--store-config", config, "--store", "it", "--store-settle=0"),
            *("-k", "listings or list_ or second_add or sweeps or incomplete or delete_is"),
            profile="short",
            CI="",  # there the one skip is a failure
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^4 passed, 1 skipped, \d+ deselected in", result.stdout, re.MULTILINE)
    assert "this server cannot list incomplete uploads; sweep cannot work" in result.stdout
