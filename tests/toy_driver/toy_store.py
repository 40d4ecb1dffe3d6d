"""A driver from another package: parts are written in place and published by a hard link."""

import contextlib
import os
import pathlib
import shutil
from urllib.parse import quote, unquote

from oslo_config import cfg

from store_lib import exceptions
from store_lib.driver import CreateOnly, Driver, PartWriter, Reader, Stat
from store_lib.location import Location

PART = 512 * 1024


class ToyLocation(Location):
    def __init__(self, object_id):
        self.name = quote(object_id, safe="", errors="surrogatepass")

    @property
    def uri(self):
        return f"toy://{self.name}"

    @classmethod
    def parse(cls, uri):
        found = cls(unquote(str(uri).removeprefix("toy://"), errors="surrogatepass"))
        if found.uri != uri or not found.name:
            raise exceptions.BadStoreUri("Expected toy://<quoted id>, got %(uri)s", uri=uri)
        return found


class ToyWriter(PartWriter):
    chunk_size, concurrency, once_limit = 64 * 1024, 3, PART // 2

    def __init__(self, staged, final, location):
        self.staged, self.final, self.location = staged, final, location
        staged.touch(exist_ok=False)

    def part_size(self, number):
        return PART

    def put_part(self, number, body):
        with open(self.staged, "r+b") as file:
            file.seek((number - 1) * PART)
            shutil.copyfileobj(body, file)

    def write_once(self, body):
        return self.commit([self.put_part(1, body)])

    def commit(self, tokens):
        try:
            os.link(self.staged, self.final)
        except FileExistsError:
            raise exceptions.duplicate(self.location.name) from None
        self.staged.unlink()
        return self.location

    def abort(self):
        self.staged.unlink()

    def resolve(self):
        with contextlib.suppress(FileNotFoundError):
            return self.location if self.staged.samefile(self.final) else None


class ToyReader(Reader):
    def __init__(self, path):
        try:
            self.file = path.open("rb")
        except FileNotFoundError:
            raise exceptions.not_found(path.name) from None
        self.size = os.fstat(self.file.fileno()).st_size

    def stream(self, offset, length):
        while piece := self.file.read(PART):
            yield piece

    def close(self):
        self.file.close()


class ToyDriver(Driver):
    schemes = ("toy",)
    location_class = ToyLocation
    create_only = CreateOnly.ATOMIC
    options = (cfg.StrOpt("toy_root", required=True, help="Directory for everything."),)

    def configure(self):
        self.root = pathlib.Path(self.conf.toy_root)

    def id_problem(self, object_id):
        return "it is too long." if len(ToyLocation(object_id).name) > 250 else None

    def path(self, location):
        return self.root / f"={location.name}"

    def create(self, object_id, size, *, nonce, context):
        location = ToyLocation(object_id)
        return ToyWriter(self.root / nonce, self.path(location), location)

    def read(self, location, offset, length, *, context):
        return ToyReader(self.path(location))

    def stat(self, location, *, context):
        with contextlib.closing(ToyReader(self.path(location))) as reader:
            return Stat(reader.size)

    def delete(self, location, *, context):
        try:
            self.path(location).unlink()
        except FileNotFoundError:
            raise exceptions.not_found(location.name) from None
