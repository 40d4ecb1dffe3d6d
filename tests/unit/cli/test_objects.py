"""The commands for single objects, on a filesystem store in a temporary directory."""

import hashlib
import os
import threading
import uuid

import pytest

DATA = b"any bytes at all" * 1000


def test_add_prints_what_was_stored(run, tmp_path, datadir):
    """add stores a file and prints id, URI, size, store and the default digest."""
    source = tmp_path / "disk.img"
    source.write_bytes(DATA)
    outcome = run("add", source, "--id", "disk-1", "-f", "json")
    assert outcome.status == 0
    assert outcome.json == {
        "id": "disk-1",
        "uri": f"file://{datadir}/disk-1",
        "size": len(DATA),
        "store": "local",
        "sha512": hashlib.sha512(DATA).hexdigest(),
    }
    assert (datadir / "disk-1").read_bytes() == DATA
    assert outcome.err == ""


def test_add_chooses_an_id(added):
    """Without --id, the object gets a random UUID."""
    uri = added()
    assert uuid.UUID(uri.rpartition("/")[2]).version == 4


def test_add_reads_standard_input(run, datadir):
    """With - as FILE, add reads standard input."""
    assert run("add", "-", "--id", "x", "--size", len(DATA), stdin=DATA).status == 0
    assert (datadir / "x").read_bytes() == DATA


def test_add_computes_the_digests_asked_for(run):
    """The digests of --digest and of --expect are computed."""
    expected = hashlib.sha256(DATA).hexdigest()
    outcome = run(
        *("add", "-", "--digest", "md5", "--digest", "sha1"),
        *("--expect", f"sha256:{expected}", "-f", "json"),
        stdin=DATA,
    )
    shown = outcome.json
    assert shown["sha256"] == expected
    assert shown["md5"] == hashlib.md5(DATA).hexdigest()
    assert shown["sha1"] == hashlib.sha1(DATA).hexdigest()
    assert "sha512" not in shown


@pytest.mark.parametrize("form", ["json", "yaml", "table", "value", "shell"])
def test_add_prints_in_every_form(run, form):
    """The result can be printed in all formats of cliff."""
    outcome = run("add", "-", "--id", "x", "-f", form, stdin=DATA)
    assert outcome.status == 0
    assert hashlib.sha512(DATA).hexdigest() in outcome.text


def test_one_column_is_fit_for_a_script(run, datadir):
    """-f value -c uri prints only the URI."""
    outcome = run("add", "-", "--id", "x", "-f", "value", "-c", "uri", stdin=DATA)
    assert outcome.text == f"file://{datadir}/x\n"


def test_add_of_a_wrong_size_or_digest_leaves_nothing(run, datadir):
    """A mismatch ends with status 8 and one line, and nothing is stored."""
    for wrong in (("--size", 3), ("--size", 10**6), ("--expect", "md5:" + "00" * 16)):
        outcome = run("add", "-", "--id", "x", *wrong, stdin=DATA)
        assert outcome.status == 8
        assert outcome.err.startswith("store-lib: error: Expected ")
        assert outcome.err.count("\n") == 1
    assert list(datadir.iterdir()) == []


def test_add_twice_is_a_duplicate(run, added, datadir):
    """A second add of the same id ends with status 4 and does not change the first object."""
    added(b"first", "--id", "x")
    assert run("add", "-", "--id", "x", stdin=b"second").status == 4
    assert (datadir / "x").read_bytes() == b"first"


def test_add_of_a_missing_file(run, tmp_path):
    """A missing local file ends with status 2 and is named."""
    outcome = run("add", tmp_path / "absent")
    assert outcome.status == 2
    assert f"{tmp_path}/absent" in outcome.err


def test_get_to_standard_output(run, added):
    """get without -o writes the exact bytes to standard output."""
    outcome = run("get", added(DATA))
    assert (outcome.status, outcome.out, outcome.err) == (0, DATA, "")


def test_get_a_range(run, added):
    """--offset and --length select a range."""
    uri = added(DATA)
    assert run("get", uri, "--offset", 5, "--length", 7).out == DATA[5:12]
    assert run("get", uri, "--offset", len(DATA) - 3).out == DATA[-3:]


def test_get_to_a_file(run, added, tmp_path):
    """-o writes only that file."""
    target = tmp_path / "out" / "copy"
    target.parent.mkdir()
    digest = hashlib.sha256(DATA).hexdigest()
    outcome = run("get", added(DATA), "-o", target, "--expect", f"sha256:{digest}")
    assert (outcome.status, outcome.out) == (0, b"")
    assert target.read_bytes() == DATA
    assert list(target.parent.iterdir()) == [target]


def test_get_does_not_overwrite(run, added, tmp_path):
    """An existing file is not changed without --force."""
    target = tmp_path / "copy"
    target.write_bytes(b"precious")
    uri = added(DATA)
    outcome = run("get", uri, "-o", target)
    assert outcome.status == 1
    assert "--force" in outcome.err
    assert target.read_bytes() == b"precious"
    assert run("get", uri, "-o", target, "--force").status == 0
    assert target.read_bytes() == DATA


def test_get_of_wrong_data_leaves_no_file(run, added, tmp_path):
    """A digest mismatch ends with status 8, and the file does not appear."""
    target = tmp_path / "out" / "copy"
    target.parent.mkdir()
    outcome = run("get", added(DATA), "-o", target, "--expect", "sha256:" + "00" * 32)
    assert outcome.status == 8
    assert list(target.parent.iterdir()) == []


def test_get_of_nothing(run, added, datadir):
    """A missing object ends with status 3, and no file appears."""
    added()
    outcome = run("get", f"file://{datadir}/absent", "-o", datadir.parent / "copy")
    assert outcome.status == 3
    assert outcome.err.startswith("store-lib: error: ")
    assert not (datadir.parent / "copy").exists()


def test_stat(run, added):
    """stat shows the size and the modification time."""
    shown = run("stat", added(DATA), "-f", "json").json
    assert shown["size"] == len(DATA)
    assert shown["modified"].startswith("20")
    assert shown["modified"].endswith("Z")


def test_delete(run, added, datadir):
    """delete removes all named objects."""
    assert run("delete", added(), added()).status == 0
    assert list(datadir.iterdir()) == []


def test_delete_goes_on_after_a_failure(run, added, datadir):
    """After an error, delete continues; the first error decides the status."""
    first, second = added(), added()
    outcome = run("delete", first, f"file://{datadir}/absent", "nonsense", second)
    assert outcome.status == 3
    assert outcome.err.count("\n") == 2
    assert list(datadir.iterdir()) == []


def test_copy(run, added, datadir):
    """copy makes a new object with the same bytes."""
    outcome = run("copy", added(DATA), "--id", "twin", "-f", "json")
    assert outcome.status == 0
    assert outcome.json["size"] == len(DATA)
    assert (datadir / "twin").read_bytes() == DATA


def test_copy_to_another_store(run, tmp_path):
    """copy --to copies to another store through this machine."""
    conf = tmp_path / "two.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = a:file, b:file\n"
        f"[a]\nfilesystem_store_datadir = {tmp_path}/a\n"
        f"[b]\nfilesystem_store_datadir = {tmp_path}/b\n"
    )
    both = ("--config-file", conf)
    uri = run(*both, "add", "-", "--store", "a", "-f", "value", "-c", "uri", stdin=DATA).text
    outcome = run(*both, "copy", uri.strip(), "--to", "b", "--id", "twin", "-f", "json")
    assert outcome.json["store"] == "b"
    assert outcome.json["sha512"] == hashlib.sha512(DATA).hexdigest()
    assert (tmp_path / "b" / "twin").read_bytes() == DATA


@pytest.mark.parametrize("object_id", ["", "..", "a/b", "x" * 300])
def test_unfit_ids_are_usage_errors(run, datadir, object_id):
    """An id that the store cannot hold ends with status 2, and nothing is stored."""
    assert run("add", "-", "--id", object_id, stdin=DATA).status == 2
    assert list(datadir.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "status"),
    [("nonsense", 2), ("file://", 2), ("file:///etc/hosts", 2), ("swift://x/y/z", 5)],
)
def test_bad_uris(run, added, uri, status):
    """A URI that is malformed or outside the store ends with status 2, an unknown scheme with 5."""
    added()
    outcome = run("get", uri)
    assert outcome.status == status
    assert outcome.err.startswith("store-lib: error: ")
    assert outcome.out == b""


def test_range_outside_the_object(run, added):
    """An offset past the end ends with status 2."""
    assert run("get", added(DATA), "--offset", len(DATA) + 1).status == 2


def test_unknown_digest(run, datadir):
    """A digest unknown to hashlib ends with status 2, and nothing is stored."""
    assert run("add", "-", "--digest", "sha3", stdin=DATA).status == 2
    assert not datadir.exists() or list(datadir.iterdir()) == []


def test_an_unknown_column_is_refused_beforehand(run, added, datadir):
    """An unknown column ends with status 2 before anything is stored or removed."""
    outcome = run("add", "-", "-c", "uri", "-c", "sha256", stdin=DATA)
    assert outcome.status == 2
    assert outcome.err.startswith("store-lib: error: Expected one of the columns id, uri, ")
    assert not datadir.exists()
    assert run("add", "-", "--expect", "md5:" + "00" * 16, "-c", "md5", stdin=DATA).status == 8
    assert run("copy", added(), "-c", "nonsense").status == 2
    assert run("sweep", "--older-than", "0", "-c", "nonsense").status == 2


def test_two_expectations_of_one_digest(run, datadir):
    """Two different digests of the same algorithm end with status 2."""
    outcome = run("add", "-", "--expect", "md5:00", "--expect", "md5:01", stdin=DATA)
    assert outcome.status == 2
    assert not datadir.exists()


def test_a_path_may_be_a_named_pipe(run, tmp_path, datadir):
    """A file of unknown size, such as a named pipe, can be added by its path."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=pipe.write_bytes, args=(DATA,))
    feeder.start()
    try:
        assert run("add", pipe, "--id", "x").status == 0
    finally:
        feeder.join()
    assert (datadir / "x").read_bytes() == DATA
