"""Toy drivers with one fault each, all of which the conformance suite must find."""

import os
import threading
import time
import unicodedata

from oslo_config import cfg
from toy_store import PART, ToyDriver, ToyLocation, ToyReader, ToyWriter

from store_lib.driver import CreateOnly, Entry, Incomplete, Space
from store_lib.exceptions import BackendException, NotFound, duplicate


class _BrokenWriter(ToyDriver):
    """A driver with a writer of its own."""

    writer = ToyWriter

    def create(self, object_id, size, *, nonce, context):
        location = ToyLocation(object_id)
        return self.writer(self.root / nonce, self.path(location), location)


class _Inventory(_BrokenWriter):
    """A driver that also tells what is there and what is unfinished."""

    def list(self, *, context):
        for path in self.root.glob("=*"):
            location = ToyLocation.parse(f"toy://{path.name[1:]}")
            yield Entry(path.name[1:], location, path.stat().st_size)

    def list_incomplete(self, *, context):
        for path in self.root.glob("[0-9a-f]*"):
            yield Incomplete(path.name, None, path.stat().st_size, path.stat().st_mtime, live=True)

    def discard(self, incomplete, *, context):
        (self.root / incomplete.key).unlink()
        return True


class EarlyWriter(ToyWriter):
    """Writes under the final name."""

    def __init__(self, staged, final, location):
        super().__init__(final, staged, location)

    def commit(self, tokens):
        return self.location


class Early(_BrokenWriter):
    writer = EarlyWriter


class LitteringWriter(ToyWriter):
    """Leaves what it wrote when it is aborted."""

    def abort(self):
        pass


class Littering(_Inventory):
    writer = LitteringWriter


_LIVE = set()


class HidingWriter(LitteringWriter):
    """Leaves what it wrote when it is aborted."""

    def __init__(self, staged, final, location):
        super().__init__(staged, final, location)
        _LIVE.add(staged.name)

    def commit(self, tokens):
        _LIVE.discard(self.staged.name)
        return super().commit(tokens)

    def abort(self):
        _LIVE.discard(self.staged.name)


class Hiding(_Inventory):
    """Tells only what is being written now as unfinished, and nothing of what is left."""

    writer = HidingWriter

    def list_incomplete(self, *, context):
        return (each for each in super().list_incomplete(context=context) if each.key in _LIVE)


class Withholding(_Inventory):
    """Claims to tell what is unfinished, on a server that has no such request."""

    def list_incomplete(self, *, context):
        raise BackendException("501 Not Implemented: ListMultipartUploads")


class Exploding(ToyDriver):
    """Fails by a mistake of its own as soon as it is used."""

    def create(self, object_id, size, *, nonce, context):
        raise TypeError("a mistake in the driver")


class OverwritingWriter(ToyWriter):
    """Puts a new object in an old one's place."""

    def commit(self, tokens):
        os.replace(self.staged, self.final)
        return self.location


class Overwriting(_BrokenWriter):
    writer = OverwritingWriter


class RacingWriter(ToyWriter):
    """Looks first and publishes then."""

    def commit(self, tokens):
        if self.final.exists():
            raise duplicate(self.location.name)
        time.sleep(0.005)
        os.replace(self.staged, self.final)
        return self.location


class Racing(_BrokenWriter):
    writer = RacingWriter


class NewLocation(ToyDriver):
    """Claims that each add makes an object of its own."""

    create_only = CreateOnly.NEW_LOCATION


class ShorteningWriter(ToyWriter):
    """Loses a last part of one byte."""

    def commit(self, tokens):
        size = self.staged.stat().st_size
        if size % PART == 1 and size > PART:
            os.truncate(self.staged, size - 1)
        return super().commit(tokens)


class Shortening(_BrokenWriter):
    writer = ShorteningWriter


_KEPT = []


class LeakingReader(ToyReader):
    """Never lets go of its file."""

    def close(self):
        _KEPT.append(self.file)


class Leaking(ToyDriver):
    def read(self, location, offset, length, *, context):
        return LeakingReader(self.path(location))


class HoardingReader(ToyReader):
    """Reads all of an object into memory."""

    def stream(self, offset, length):
        yield self.file.read()


class Hoarding(ToyDriver):
    def read(self, location, offset, length, *, context):
        return HoardingReader(self.path(location))


class Forgiving(ToyDriver):
    """Deletes what is not there without a word."""

    def delete(self, location, *, context):
        self.path(location).unlink(missing_ok=True)


class Mangling(ToyDriver):
    """Takes composed and decomposed letters for the same."""

    def create(self, object_id, size, *, nonce, context):
        mangled = unicodedata.normalize("NFC", object_id)
        return super().create(mangled, size, nonce=nonce, context=context)


class Talkative(ToyDriver):
    """Tells its password when something is not found."""

    options = (*ToyDriver.options, cfg.StrOpt("toy_password", secret=True, default="hunter2222"))

    def stat(self, location, *, context):
        if not self.path(location).exists():
            raise NotFound(f"No {location.name} at user:{self.conf.toy_password}.")
        return super().stat(location, context=context)


class Ranging(ToyDriver):
    """Claims ranges, and reads from the start whatever is asked."""

    ranges = True


class Boasting(ToyDriver):
    """Claims to tell its room, and tells nonsense."""

    def space(self, *, context):
        return Space(total=10, free=20)


class Hanging(ToyDriver):
    """Never answers."""

    def stat(self, location, *, context):
        threading.Event().wait()


class Spinning(ToyDriver):
    """Starts a thread and never ends it."""

    def configure(self):
        super().configure()
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class Listing(_Inventory):
    """Lists nothing."""

    def list(self, *, context):
        yield from ()


class Sweeping(_Inventory):
    """Removes the uploads that it calls live, as ``discard`` above does."""


class ForkShy(ToyDriver):
    """Works only in the process that made it."""

    def configure(self):
        super().configure()
        self.process = os.getpid()

    def read(self, location, offset, length, *, context):
        if os.getpid() != self.process:
            raise RuntimeError("this connection belongs to another process")
        return super().read(location, offset, length, context=context)


class Forgetful(ToyDriver):
    """Has lost what it claims to hold."""

    def stat(self, location, *, context):
        found = super().stat(location, context=context)
        return type(found)(0)
