"""An S3 server in memory, on the scripted web server: good answers, but for what a test spoils."""

import base64
import dataclasses
import email.utils
import hashlib
import re
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from xml.sax.saxutils import escape

from tests.s3_faults import Spoiled, refusal, xml_answer
from tests.scripted_server import Reply, Request, ScriptedServer


@dataclasses.dataclass
class Stored:
    """An object."""

    data: bytes
    metadata: dict[str, str]
    tag: str
    #: Its CRC-32, as S3 writes it.
    crc: str
    modified: float = dataclasses.field(default_factory=time.time)


class S3Server(Spoiled):
    """One bucket, as Ceph's gateway serves it: ``If-None-Match`` counts on a put alone."""

    def __init__(self, server: ScriptedServer, bucket: str = "box") -> None:
        self._name = bucket
        super().__init__(server)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.bucket = self._name
        self.objects: dict[str, Stored] = {}
        #: Parts by number, by upload, with the key and the metadata that it is to have.
        self.uploads: dict[str, tuple[str, dict[str, str], dict[int, bytes]]] = {}
        self._numbers = 0

    def answer(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        words = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        _, bucket, *rest = urllib.parse.unquote(path).split("/", 2)
        key = rest[0] if rest else ""
        if bucket != self.bucket:
            return refusal(404, "NoSuchBucket")
        if not key:
            return self._list(words) if request.method == "GET" else Reply()
        if "uploads" in words:
            return self._begin(key, request)
        if "uploadId" in words:
            return self._upload(request, key, words)
        return getattr(self, f"_{request.method.lower()}")(key, request)

    def _put(self, key: str, request: Request) -> Reply:
        if request.headers.get("if-none-match") == "*" and key in self.objects:
            return refusal(412, "PreconditionFailed")
        source = request.headers.get("x-amz-copy-source")
        data = request.body
        if source:
            data = self.objects[urllib.parse.unquote(source).split("/", 1)[1]].data
        self.store(key, data, _metadata(request))
        tag = self.objects[key].tag
        body = f"<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>" if source else ""
        return Reply(body=body.encode(), headers={"ETag": tag})

    def store(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
        """Put an object there."""
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        self.objects[key] = Stored(data, metadata or {}, tag, crc)

    def _head(self, key: str, request: Request) -> Reply:
        return self._get(key, request)

    def _get(self, key: str, request: Request) -> Reply:
        found = self.objects.get(key)
        if found is None:
            return refusal(404, "NoSuchKey")
        if request.headers.get("if-match") not in (None, found.tag):
            return refusal(412, "PreconditionFailed")
        headers: dict[str, str | None] = {
            "ETag": found.tag,
            "Last-Modified": email.utils.formatdate(found.modified, usegmt=True),
            "Date": email.utils.formatdate(time.time(), usegmt=True),
            **{f"x-amz-meta-{name}": value for name, value in found.metadata.items()},
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not wanted:
            if request.headers.get("x-amz-checksum-mode"):
                headers["x-amz-checksum-crc32"] = found.crc
            return Reply(body=found.data, headers=headers)
        start, total = int(wanted[1]), len(found.data)
        end = min(int(wanted[2] or total), total - 1)
        if start >= total:
            return refusal(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {start}-{end}/{total}"
        return Reply(206, found.data[start : end + 1], headers)

    def _delete(self, key: str, request: Request) -> Reply:
        self.objects.pop(key, None)
        return Reply(204)

    def _begin(self, key: str, request: Request) -> Reply:
        self._numbers += 1
        upload = f"upload-{self._numbers}"
        self.uploads[upload] = (key, _metadata(request), {})
        return xml_answer(f"<X><UploadId>{upload}</UploadId></X>")

    def _upload(self, request: Request, key: str, words: dict[str, str]) -> Reply:
        upload = words["uploadId"]
        if upload not in self.uploads:
            return refusal(404, "NoSuchUpload")
        _, metadata, parts = self.uploads[upload]
        if request.method == "DELETE":
            del self.uploads[upload]
            return Reply(204)
        if request.method == "PUT":
            parts[int(words["partNumber"])] = request.body
            return Reply(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        if request.method == "GET":
            rows = "".join(
                f"<Part><PartNumber>{number}</PartNumber><Size>{len(data)}</Size>"
                f"<LastModified>2020-01-02T00:00:00Z</LastModified></Part>"
                for number, data in parts.items()
            )
            return xml_answer(f"<X>{rows}</X>")
        numbers = [int(each) for each in re.findall(r"<PartNumber>(\d+)<", request.body.decode())]
        self.store(key, b"".join(parts[each] for each in numbers), metadata)
        del self.uploads[upload]
        return xml_answer(f"<X><ETag>{self.objects[key].tag}</ETag></X>")

    def _list(self, words: dict[str, str]) -> Reply:
        rows: Iterator[str]
        if "uploads" in words:
            rows = (
                f"<Upload><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
                "<Initiated>2020-01-01T00:00:00Z</Initiated></Upload>"
                for upload, (key, _, _) in self.uploads.items()
            )
        else:
            rows = (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(each.data)}</Size>"
                "<LastModified>2020-01-01T00:00:00Z</LastModified></Contents>"
                for key, each in self.objects.items()
                if key.startswith(words.get("prefix", ""))
            )
        return xml_answer(f"<X>{''.join(rows)}<IsTruncated>false</IsTruncated></X>")


def _metadata(request: Request) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name.removeprefix(prefix): value
        for name, value in request.headers.items()
        if name.startswith(prefix)
    }
