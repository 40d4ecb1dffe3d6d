"""A small client of Glance's API: enough to add, read, import and delete images."""

import contextlib
import json
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import urllib3

from tests.servers.process import eventually

#: The identity that the client claims; Glance's pipeline trusts it.
IDENTITY: Mapping[str, str] = {
    "X-Identity-Status": "Confirmed",
    "X-Roles": "admin,member,reader",
    "X-Tenant-Id": "9b2a8f3c1d5e4f60a7b8c9d0e1f2a3b4",
    "X-User-Id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
}

#: Bytes of one chunk of a chunked upload.
CHUNK = 64 * 1024


class Refused(Exception):
    """An unexpected response.

    :ivar status: the HTTP status
    """

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status} {text}")
        self.status = status
        self.text = text


class ImageApi:
    """The API of a Glance.

    :param url: the URL without ``/v2``
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # urllib3 applies the connect timeout while sending, and the server may still load Glance.
        timeout = urllib3.Timeout(connect=120, read=120)
        self._pool = urllib3.PoolManager(retries=False, timeout=timeout)

    def __enter__(self) -> "ImageApi":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.clear()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Make a request and return the response, even if it is an error.

        :param body: bytes, a file, an iterable of bytes
        """
        return self._pool.request(
            method,
            self.url + path,
            body=body,
            headers={**IDENTITY, **(headers or {})},
            chunked=chunked,
            preload_content=not stream,
        )

    def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Any:
        """Make a request with a JSON body and return the JSON of the response.

        :raises Refused: the response is an error
        """
        data = None if body is None else json.dumps(body).encode()
        answer = self.call(method, path, data, headers={"Content-Type": content_type})
        if answer.status >= 300:
            raise Refused(f"{method} {path}", answer.status, text_of(answer))
        return json.loads(answer.data) if answer.data else None

    def create(self, **properties: object) -> str:
        """Make an image without data and return its id."""
        made = self.json(
            "POST",
            "/v2/images",
            {"name": "t", "container_format": "bare", "disk_format": "raw", **properties},
        )
        return str(made["id"])

    def show(self, image: str) -> dict[str, Any]:
        """Return Glance's record of an image."""
        shown = self.json("GET", f"/v2/images/{image}")
        assert isinstance(shown, dict)
        return shown

    def upload(
        self,
        image: str,
        body: bytes | IO[bytes] | Iterable[bytes],
        size: int | None = None,
        *,
        store: str | None = None,
        to: str = "file",
    ) -> None:
        """Upload the data of an image.

        :param size: size in bytes; ``None`` sends a chunk for each item that ``body`` yields
        :param store: the id of the store
        :param to: ``file`` or ``stage``
        :raises Refused: the response is an error
        """
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        if store is not None:
            headers["X-Image-Meta-Store"] = store
        if isinstance(body, bytes):
            body = pieces_of(body)
        path = f"/v2/images/{image}/{to}"
        answer = self.call("PUT", path, body, headers=headers, chunked=size is None)
        if answer.status != 204:
            raise Refused(f"PUT {path}", answer.status, text_of(answer))

    @contextlib.contextmanager
    def download(
        self, image: str, byte_range: str | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Request the data of an image; the caller reads the body of the response.

        :param byte_range: a range such as ``bytes=10-``
        """
        headers = {} if byte_range is None else {"Range": byte_range}
        answer = self.call("GET", f"/v2/images/{image}/file", headers=headers, stream=True)
        try:
            yield answer
        finally:
            answer.drain_conn()
            answer.release_conn()

    def read(self, image: str, byte_range: str | None = None) -> tuple[int, bytes]:
        """Return the status and the bytes of a download."""
        with self.download(image, byte_range) as answer:
            return answer.status, answer.read()

    def start_import(self, image: str, method: str, **request: object) -> None:
        """Start an import.

        :param request: items of the request besides the method, such as ``stores``
        :raises Refused: the response is an error
        """
        uri = request.pop("uri", None)
        how = {"name": method} if uri is None else {"name": method, "uri": uri}
        self.json("POST", f"/v2/images/{image}/import", {"method": how, **request})

    def wait_imported(self, image: str) -> dict[str, Any]:
        """Wait until an import has succeeded or failed, and return the image."""

        # Do not poll the task: each such request writes to the database.
        def ended() -> dict[str, Any] | None:
            shown = self.show(image)
            return None if "os_glance_import_task" in shown else shown

        return eventually(ended, f"the end of the import of {image}")

    def delete(self, image: str) -> None:
        """Delete an image with its data."""
        self.json("DELETE", f"/v2/images/{image}")

    @contextlib.contextmanager
    def image(self, **properties: object) -> Iterator[str]:
        """Yield the id of a new image and delete the image at the end."""
        image = self.create(**properties)
        try:
            yield image
        finally:
            self.delete(image)

    @contextlib.contextmanager
    def cut(
        self, image: str, body: bytes, *, size: int | None, target: str = "file"
    ) -> Iterator[None]:
        """Send the beginning of an image's data and disconnect at the end of the block.

        :param size: the ``Content-Length``; ``None`` uses chunks
        :param target: ``file``, or ``stage`` for the staging store
        """
        url = urllib3.util.parse_url(self.url)
        path = f"{url.path or ''}/v2/images/{image}/{target}"
        headers = {**IDENTITY, "Host": url.netloc or "", "Connection": "close"}
        headers["Content-Type"] = "application/octet-stream"
        if size is None:
            headers["Transfer-Encoding"] = "chunked"
            # The next chunk is announced but not sent.
            body = b"%x\r\n%b\r\n%x\r\n" % (len(body), body, CHUNK)
        else:
            headers["Content-Length"] = str(size)
        lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        assert url.host is not None
        with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            yield


def pieces_of(data: bytes, size: int = CHUNK) -> Iterator[bytes]:
    """Yield ``data`` in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def text_of(answer: urllib3.BaseHTTPResponse) -> str:
    """Return the text of a response, for a message."""
    return answer.data.decode(errors="replace")[:500]


def new_id() -> str:
    """Return an id that no image has."""
    return str(uuid.uuid4())
