"""A test run that is killed leaves nothing behind: no process, mount, loop device or directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.process import eventually

_ROOT = Path(__file__).parents[2]

#: A run that makes one of everything, says so and stands still.
_RUN = """
import pathlib, subprocess, sys, time
from tests.servers.leftovers import detach_afterwards, remove_afterwards, watch_this_run

watch_this_run()
place = pathlib.Path(sys.argv[1])
(place / "mount").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "mount"], check=True)
(place / "mount" / "marker").touch()
(place / "files").mkdir()
(place / "files" / "volume").write_bytes(bytes(1 << 20))
detach_afterwards(place / "files")
subprocess.run(["losetup", "--find", place / "files" / "volume"], check=True)
remove_afterwards(place / "gone")
(place / "gone").mkdir()
(place / "link").symlink_to("gone")
remove_afterwards(place / "link")
sleeper = subprocess.Popen(["setsid", "sleep", "600"])
print(sleeper.pid, flush=True)
time.sleep(600)
"""


def _loops(below: Path) -> list[str]:
    told = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for each in told if (text := each.read_text()).startswith(f"{below}/")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root: run the tests as root")
def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    """After kill -9 of a run its processes, mounts, loop devices and directories are gone."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "TMPDIR": str(tmp_path)}
    del environment["STORE_LIB_TEST_LEFTOVERS"]
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    with run.stdout:
        sleeper = int(run.stdout.readline())
        assert not (tmp_path / "mount" / "marker").exists()  # it is mounted in there alone
        assert len(_loops(tmp_path)) == 1
        assert Path(f"/proc/{run.pid}/mounts").read_text().count(f" {tmp_path}/") == 1
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    eventually(lambda: not list(tmp_path.glob("store_lib-leftovers-*")), "the watcher ends")
    assert not Path(f"/proc/{sleeper}/ns/mnt").exists() or _is_dead(sleeper)
    assert _loops(tmp_path) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["files", "mount"]
    assert f" {tmp_path}/" not in Path("/proc/self/mounts").read_text()


def _is_dead(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
