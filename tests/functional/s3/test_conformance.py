"""The s3 driver passes the conformance suite on real servers of two makes."""

import pathlib
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
from tests.servers.ceph import Ceph

#: What Swift is put to: all in which it differs from Ceph.
_ON_SWIFT = "racing or second_add or ids_ or list_ or copy_ or ranges_ or delete_ or unfinished"


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
