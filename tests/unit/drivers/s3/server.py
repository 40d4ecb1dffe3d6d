"""An S3 server in memory, on the scripted web server: good answers, but for what a test spoils."""

import base64
import dataclasses
import email.utils
import hashlib
import re
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
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


@dataclasses.dataclass
class Started:
    """An upload in parts."""

    key: str
    #: What the object is to have.
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    parts: dict[int, bytes] = dataclasses.field(default_factory=dict)
    #: When it was begun, and when its newest part came.
    begun: float = dataclasses.field(default_factory=time.time)
    touched: float = dataclasses.field(default_factory=time.time)


class S3Server(Spoiled):
    """One bucket, as Ceph's gateway serves it, or as other servers do that were seen."""

    def __init__(self, server: ScriptedServer, bucket: str = "box") -> None:
        self._name = bucket
        super().__init__(server)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.bucket = self._name
        #: Another bucket, with the same objects.
        self.twin = ""
        #: What the server's URL has before the bucket.
        self.path = ""
        self.objects: dict[str, Stored] = {}
        #: Uploads in parts that have not ended.
        self.uploads: dict[str, Started] = {}
        self._numbers = 0
        #: How names of metadata come back; ``None`` for a server that keeps no metadata.
        self.spelling: Callable[[str], str] | None = str.lower
        #: What ``If-None-Match`` is decided on: of "put", "copy" and "complete"; with "source" it
        #: is held against what is copied, as on Swift.
        self.decides = {"put"}
        #: What is answered to ``If-None-Match``, by the same words.
        self.refuses: dict[str, Reply] = {}
        #: Whether ``If-Match`` is obeyed.
        self.matches = True
        #: As GetBucketVersioning says it; as on Ceph, Enabled has ``If-None-Match`` ignored, and
        #: Suspended has it count what was deleted.
        self.versioning = ""
        self.deleted: set[str] = set()
        #: Whether all parts but the last must have one size.
        self.equal_parts = False
        self.longest_key = 1024
        #: Whether the bucket has a default retention, so that all bytes need a checksum.
        self.retention = False
        #: Seconds that the server's clock is ahead.
        self.ahead = 0.0
        #: Entries of a page of a listing.
        self.page = 1000

    def answer(self, request: Request) -> Reply:
        reply = self._answer(request)
        reply.headers.setdefault("Date", _date(time.time() + self.ahead))
        return reply

    def _answer(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        words = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        path = urllib.parse.unquote(path).removeprefix(self.path)
        _, bucket, *rest = path.split("/", 2)
        key = rest[0] if rest else ""
        if bucket not in (self.bucket, self.twin):
            return refusal(404, "NoSuchBucket")
        if "versioning" in words:
            status = f"<Status>{self.versioning}</Status>" if self.versioning else ""
            return xml_answer(f"<VersioningConfiguration>{status}</VersioningConfiguration>")
        if not key:
            return self._list(words) if request.method == "GET" else Reply()
        if len(key.encode()) > self.longest_key:
            return refusal(400, "KeyTooLongError")
        if "uploads" in words:
            return self._begin(key, request)
        if "uploadId" in words:
            return self._upload(request, key, words)
        return getattr(self, f"_{request.method.lower()}")(key, request)

    def _condition(self, what: str, key: str, request: Request) -> Reply | None:
        """Return what ``If-None-Match`` comes to, where that is a refusal."""
        if request.headers.get("if-none-match") != "*":
            return None
        if what in self.refuses:
            return self.refuses[what]
        if what not in self.decides or self.versioning == "Enabled":
            return None
        there = key in self.objects or (self.versioning == "Suspended" and key in self.deleted)
        return refusal(412, "PreconditionFailed") if there else None

    def _unprotected(self, request: Request) -> Reply | None:
        if not self.retention or {"content-md5", "x-amz-checksum-crc32"} & set(request.headers):
            return None
        return refusal(
            400,
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with "
            "Object Lock parameters",
        )

    def _put(self, key: str, request: Request) -> Reply:
        source = request.headers.get("x-amz-copy-source")
        if refused := self._condition("copy" if source else "put", key, request):
            return refused
        data = request.body
        if source:
            if "source" in self.decides and "if-none-match" in request.headers:
                return refusal(412, "PreconditionFailed")
            data = self.objects[urllib.parse.unquote(source).split("/", 1)[1]].data
        elif refused := self._unprotected(request):
            return refused
        self.store(key, data, _metadata(request))
        tag = self.objects[key].tag
        body = f"<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>" if source else ""
        versions = {"x-amz-version-id": str(len(self.server.requests))} if self.versioning else {}
        return Reply(body=body.encode(), headers={"ETag": tag, **versions})

    def store(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
        """Put an object there."""
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        self.objects[key] = Stored(data, metadata or {}, tag, crc)
        self.deleted.discard(key)

    def _head(self, key: str, request: Request) -> Reply:
        return self._get(key, request)

    def _get(self, key: str, request: Request) -> Reply:
        found = self.objects.get(key)
        if found is None:
            return refusal(404, "NoSuchKey")
        if self.matches and request.headers.get("if-match") not in (None, found.tag):
            return refusal(412, "PreconditionFailed")
        metadata = found.metadata if self.spelling else {}
        headers: dict[str, str | None] = {
            "ETag": found.tag,
            "Last-Modified": _date(found.modified + self.ahead),
            **{(self.spelling or str)(f"x-amz-meta-{name}"): metadata[name] for name in metadata},
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
        if self.objects.pop(key, None):
            self.deleted.add(key)
        return Reply(204)

    def _begin(self, key: str, request: Request) -> Reply:
        self._numbers += 1
        upload = f"upload-{self._numbers}"
        self.uploads[upload] = Started(key, _metadata(request))
        return xml_answer(f"<X><UploadId>{upload}</UploadId></X>")

    def _upload(self, request: Request, key: str, words: dict[str, str]) -> Reply:
        upload = words["uploadId"]
        if upload not in self.uploads:
            return refusal(404, "NoSuchUpload")
        started = self.uploads[upload]
        parts = started.parts
        if request.method == "DELETE":
            del self.uploads[upload]
            return Reply(204)
        if request.method == "PUT":
            return self._put_part(started, int(words["partNumber"]), request)
        if request.method == "GET":
            return self._list_parts(started)
        if refused := self._condition("complete", key, request):
            return refused
        numbers = [int(each) for each in re.findall(r"<PartNumber>(\d+)<", request.body.decode())]
        if self.equal_parts and len({len(parts[each]) for each in numbers[:-1]}) > 1:
            return refusal(400, "InvalidPart", "All non-trailing parts must have the same length.")
        self.store(key, b"".join(parts[each] for each in numbers), started.metadata)
        del self.uploads[upload]
        return xml_answer(f"<X><ETag>{self.objects[key].tag}</ETag></X>")

    def _put_part(self, started: Started, number: int, request: Request) -> Reply:
        data = request.body
        if source := request.headers.get("x-amz-copy-source"):
            found = self.objects[urllib.parse.unquote(source).split("/", 1)[1]]
            if self.matches and request.headers.get("x-amz-copy-source-if-match") != found.tag:
                return refusal(412, "PreconditionFailed")
            first, _, last = request.headers["x-amz-copy-source-range"][6:].partition("-")
            data = found.data[int(first) : int(last) + 1]
        elif refused := self._unprotected(request):
            return refused
        started.parts[number] = data
        started.touched = time.time()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        body = f"<CopyPartResult><ETag>{tag}</ETag></CopyPartResult>" if source else ""
        return Reply(body=body.encode(), headers={"ETag": tag})

    def _list_parts(self, started: Started) -> Reply:
        touched = _instant(started.touched + self.ahead)
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{len(data)}</Size>"
            f'<ETag>"{hashlib.md5(data).hexdigest()}"</ETag>'
            f"<LastModified>{touched}</LastModified></Part>"
            for number, data in started.parts.items()
        )
        return xml_answer(f"<X>{rows}<IsTruncated>false</IsTruncated></X>")

    def _list(self, words: dict[str, str]) -> Reply:
        prefix = words.get("prefix", "")
        if "uploads" in words:
            return self._list_uploads(prefix, words)
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        first = int(words.get("continuation-token", 0))
        rows = (
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key].data)}</Size>"
            f"<LastModified>{_instant(self.objects[key].modified + self.ahead)}</LastModified>"
            "</Contents>"
            for key in keys[first : first + self.page]
        )
        token = "NextContinuationToken"
        return self._page(rows, f"<{token}>{first + self.page}</{token}>", first, len(keys))

    def _list_uploads(self, prefix: str, words: dict[str, str]) -> Reply:
        uploads = [name for name in self.uploads if self.uploads[name].key.startswith(prefix)]
        first = uploads.index(mark) + 1 if (mark := words.get("upload-id-marker")) else 0
        page = uploads[first : first + self.page]
        rows = (
            f"<Upload><Key>{escape(self.uploads[name].key)}</Key><UploadId>{name}</UploadId>"
            f"<Initiated>{_instant(self.uploads[name].begun + self.ahead)}</Initiated></Upload>"
            for name in page
        )
        token = (
            f"<NextKeyMarker>{self.uploads[page[-1]].key}</NextKeyMarker>"
            f"<NextUploadIdMarker>{page[-1]}</NextUploadIdMarker>"
            if page
            else ""
        )
        return self._page(rows, token, first, len(uploads))

    def _page(self, rows: Iterator[str], token: str, first: int, total: int) -> Reply:
        more = first + self.page < total
        end = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token if more else ''}"
        return xml_answer(f"<X>{''.join(rows)}{end}</X>")


def _date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def _instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _metadata(request: Request) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        name.removeprefix(prefix): value
        for name, value in request.headers.items()
        if name.startswith(prefix)
    }
