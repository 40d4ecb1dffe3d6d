"""The listing commands, on filesystem stores in temporary directories."""

import os
import subprocess
import sys
import time

import pytest

from tests.scripted_server import Reply, ScriptedServer


@pytest.fixture
def four(tmp_path):
    """Options for a configuration with two working stores, a read-only and a broken one."""
    conf = tmp_path / "four.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = a:file, b:file, web:http, broken:nowhere\n"
        "[glance_store]\ndefault_backend = b\n"
        f"[a]\nfilesystem_store_datadir = {tmp_path}/a\nweight = 7\nstore_description = first\n"
        f"[b]\nfilesystem_store_datadir = {tmp_path}/b\n"
    )
    return ("--config-file", conf)


def test_stores(run, four):
    """stores lists the configured stores with their capabilities and errors."""
    outcome = run(*four, "stores", "-f", "json")
    assert outcome.status == 0
    a, b, web, broken = outcome.json
    assert (a["id"], a["driver"], a["weight"], a["description"]) == ("a", "file", 7, "first")
    assert (a["default"], b["default"]) == (False, True)
    assert (a["readable"], a["writable"], a["error"]) == (True, True, None)
    assert {"add", "delete", "list", "ranges"} <= set(a["capabilities"])
    assert a["free"] > 0
    assert (web["readable"], web["writable"]) == (True, False)
    assert (broken["readable"], broken["writable"]) == (False, False)
    assert "nowhere" in broken["error"]


def test_stores_as_a_table(run, four):
    """In a table, the free space has a unit and unknown values are blank."""
    outcome = run(*four, "stores", "-c", "id", "-c", "free", "-c", "description")
    assert outcome.status == 0
    assert "iB" in outcome.text
    assert "None" not in outcome.text


def test_list_shows_every_store(run, four, tmp_path):
    """list shows the objects of all stores that can list, and warns of a broken store."""
    for store, name in (("b", "2"), ("a", "1"), ("a", "3")):
        assert run(*four, "add", "-", "--id", name, "--store", store, stdin=b"12").status == 0
    outcome = run(*four, "list", "-f", "json")
    assert outcome.status == 0
    assert [(row["id"], row["store"], row["size"]) for row in outcome.json] == [
        ("1", "a", 2),
        ("2", "b", 2),
        ("3", "a", 2),
    ]
    assert outcome.json[0]["uri"] == f"file://{tmp_path}/a/1"
    assert outcome.err.startswith("store-lib: warning: Skipping store broken: ")
    assert outcome.err.count("\n") == 1
    assert run("-q", *four, "list").err == ""


def test_list_one_store(run, four):
    """list --store shows one store."""
    run(*four, "add", "-", "--id", "1", "--store", "a")
    run(*four, "add", "-", "--id", "2", "--store", "b")
    assert run(*four, "list", "--store", "a", "-f", "value", "-c", "id").text == "1\n"


def test_list_a_store_that_cannot(run, four):
    """A store that cannot list ends with status 10, an unknown or broken one with 5."""
    assert run(*four, "list", "--store", "web").status == 10
    assert run(*four, "list", "--store", "nobody").status == 5
    assert run(*four, "list", "--store", "broken").status == 5


def test_list_where_no_store_can(run, tmp_path):
    """Without a store that can list, list ends with status 10."""
    conf = tmp_path / "web.conf"
    conf.write_text("[DEFAULT]\nenabled_backends = web:http\n")
    assert run("--config-file", conf, "list").status == 10
    assert run("--config-file", conf, "add", "-").status == 10


@pytest.fixture
def leftover(added, datadir):
    """The incomplete upload of an add that was killed an hour ago, in the local store."""
    added()
    before = set(datadir.iterdir())
    child = subprocess.Popen(
        [sys.executable, "-m", "store_lib.cli", "add", "-", "--id", "half"],
        stdin=subprocess.PIPE,
    )
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(bytes(4 * 1024 * 1024))
        child.stdin.flush()
        while not (staged := set(datadir.iterdir()) - before):
            time.sleep(0.01)
        child.kill()
        child.wait()
    (path,) = staged
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    return path


def test_incomplete_and_sweep(run, leftover):
    """An incomplete upload is listed, and swept only when it is old; objects remain."""
    (row,) = run("incomplete", "-f", "json").json
    assert (row["store"], row["live"]) == ("local", False)
    assert len(run("list", "-f", "json").json) == 1
    assert run("sweep", "--older-than", "2h", "-f", "json").json == []
    assert len(run("sweep", "--older-than", "30m", "--dry-run", "-f", "json").json) == 1
    assert leftover.exists()
    (removed,) = run("sweep", "--older-than", "30m", "-f", "json").json
    assert removed["key"] == row["key"]
    assert not leftover.exists()
    assert run("incomplete", "-f", "json").json == []
    assert len(run("list", "-f", "json").json) == 1


def test_sweep_asks_for_an_age(run):
    """sweep without --older-than is a usage error."""
    outcome = run("sweep")
    assert outcome.status == 2
    assert "--older-than" in outcome.err


def half(directory, image="one"):
    """Make the file of a killed upload."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f".store_lib-{'1' * 32}-{image}"
    path.write_text("half")
    os.utime(path, (1e9, 1e9))
    return path


STAGING, TASKS = "os_glance_staging_store", "os_glance_tasks_store"


@pytest.mark.parametrize("form", ["sections", "default", "single"])
def test_leftovers_of_the_stores_that_glance_keeps_for_itself(run, tmp_path, form, monkeypatch):
    """With Glance's configuration, both commands include its staging and task stores."""
    monkeypatch.setattr("store_lib.cli.config.RESERVED_DATADIR", f"{tmp_path}/{{}}")
    folders = {name: tmp_path / name for name in (STAGING, TASKS)}
    text = {
        "sections": f"enabled_backends = a:file\n[{STAGING}]\n"
        f"filesystem_store_datadir = {tmp_path}/elsewhere\n",
        "default": "enabled_backends = a:file\n",
        "single": f"node_staging_uri = file://{folders[STAGING]}/\n"
        f"[task]\nwork_dir = {folders[TASKS]}\n[glance_store]\nstores = file\n"
        f"filesystem_store_datadir = {tmp_path}/a\n",
    }[form]
    if form == "sections":
        folders[STAGING] = tmp_path / "elsewhere"
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[DEFAULT]\n{text}[a]\nfilesystem_store_datadir = {tmp_path}/a\n")
    left = {name: half(folder) for name, folder in folders.items()}
    rows = run("--config-file", conf, "incomplete", "-f", "json").json
    assert {row["store"]: row["key"] for row in rows} == {
        name: str(path) for name, path in left.items()
    }
    sweep = ("--config-file", conf, "sweep", "--older-than", "1h", "-f", "json")
    (row,) = run(*sweep, "--store", TASKS).json
    assert (row["store"], row["id"]) == (TASKS, "one")
    assert [row["store"] for row in run(*sweep).json] == [STAGING]
    assert [path for path in left.values() if path.exists()] == []


def test_looking_for_leftovers_creates_nothing(run, tmp_path):
    """A missing staging directory is not created by a listing."""
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nenabled_backends = a:file\n[a]\nfilesystem_store_datadir = {tmp_path}/a\n"
        f"[{STAGING}]\nfilesystem_store_datadir = {tmp_path}/staging\n"
    )
    assert run("--config-file", conf, "incomplete", "-f", "json").json == []
    assert not (tmp_path / "staging").exists()
    assert run("--config-file", conf, "incomplete", "--store", STAGING).status == 5


def test_a_store_that_is_away_is_not_waited_for_long(run, tmp_path, clock):
    """list retries for three seconds and logs each retry; get retries as configured."""
    with ScriptedServer(lambda request: Reply(503)) as server:
        conf = tmp_path / "away.conf"
        conf.write_text(
            "[DEFAULT]\nenabled_backends = box:s3, web:http\n"
            f"[box]\ns3_store_host = {server.url}\ns3_store_access_key = a\n"
            "s3_store_secret_key = b\ns3_store_bucket = box\n"
        )
        outcome = run("--config-file", conf, "list", "--store", "box")
        assert outcome.status == 9
        assert sum(clock.pauses) < 4
        clock.pauses.clear()
        outcome = run("--config-file", conf, "get", f"{server.url}/x")
        assert outcome.status == 9
        assert sum(clock.pauses) == pytest.approx(20, abs=1)
        first = outcome.err.splitlines()[0]
    assert first.startswith("store-lib: warning: Store web: get of ")
    assert "trying again in 0.1 s (try 2, for 20 s more)" in first
