"""The S3 driver."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from oslo_config import cfg

from store_lib.clients.library_calls import LibraryCall
from store_lib.driver import (
    CreateOnly,
    Driver,
    Entry,
    Incomplete,
    PartWriter,
    Reader,
    RequestContext,
    Stat,
)
from store_lib.drivers.s3.client import NONCE, Bucket, Client, NewObject
from store_lib.drivers.s3.location import S3Location, is_object_key
from store_lib.drivers.s3.multipart import MultipartUpload, PartSizes, abort_upload, list_uploads
from store_lib.drivers.s3.options import ATOMIC, MIB, OPTIONS, Settings, settings_of
from store_lib.drivers.s3.publishing import (
    PREFIX,
    Proof,
    Publication,
    is_claim,
    list_claims,
    remove_expired_claim,
)
from store_lib.drivers.s3.reader import S3Reader
from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import Forbidden, Invalid, NotFound, StoreError, not_found
from store_lib.location import Location

#: Maximum lifetime of a presigned URL in seconds.
_LONGEST_URL = 7 * 24 * 3600


class S3Driver(Driver[S3Location]):
    """Stores objects in a bucket; an object's key is its id."""

    schemes: ClassVar[tuple[str, ...]] = S3Location.schemes
    location_class: ClassVar[type[Location]] = S3Location
    options: ClassVar[tuple[cfg.Opt, ...]] = OPTIONS
    extra = "s3"
    ranges = True
    copies = True
    read_concurrency = 4
    # A nearby server is faster than this over a single connection.
    single_stream_rate = 256 * MIB

    _client: Client
    _settings: Settings
    _server: str
    _bucket: Bucket
    _proof: Proof
    _bucket_ensured = False

    def configure(self) -> None:
        """Check the options and make a client; no connection is made."""
        with LibraryCall(self._misconfigured):
            self._settings = settings_of(self.conf)
            self._client = Client(self.conf, self._settings, lambda call: self.retry(call))
            self._client.open()
        self._server = self._location("").server
        self._bucket = Bucket(self._client, self._settings.bucket)
        self.create_only = (
            CreateOnly.ATOMIC if self._settings.create_only == ATOMIC else CreateOnly.CHECKED
        )
        self._proof = Proof(self._bucket, self._settings.create_only)

    def _misconfigured(self, error: Exception) -> StoreError | None:
        # botocore raises ValueError or BotoCoreError for a bad region or a bad file of its own.
        return None if isinstance(error, ImportError) else self.misconfigured(str(error))

    @property
    def url_prefix(self) -> str:
        return f"{self._settings.scheme}://{self._settings.host}/{self._settings.bucket}"

    def owns(self, location: S3Location) -> bool:
        """Return whether ``location`` is on this server, in any bucket."""
        return location.server == self._server or self.conf.moved_from(
            location.host, f"{location.host}/{location.bucket}"
        )

    def holds(self, location: S3Location) -> bool:
        """Return whether ``location`` is in this store's bucket, or in a former one."""
        return self.owns(location) and self._is_own_bucket(location)

    def _is_own_bucket(self, location: S3Location) -> bool:
        return location.bucket == self._settings.bucket or self.conf.moved_from(
            f"{location.host}/{location.bucket}"
        )

    def here(self, location: S3Location) -> S3Location:
        """Return the location of the same bucket and key on this server."""
        mine = self._settings
        return S3Location(mine.scheme, mine.host, location.bucket, location.key)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> PartWriter:
        sizes = PartSizes(size, self._settings.part, self._settings.equal_parts)
        sizes.check()
        target = NewObject(self._bucket, object_id, nonce)
        publication = self._publication(target)
        if not size or size > S3Writer.chunk_size:
            # A large add, or a copy, checks this first, before much is read and sent in vain.
            publication.check()
        return self._writer(MultipartUpload(target, sizes), publication)

    def resume(self, state: Mapping[str, Any], *, context: RequestContext | None) -> PartWriter:
        """Return a writer that continues a multipart upload.

        If the upload was already published, :meth:`S3Writer.resolve` of the writer returns the
        location.  The ``parts`` of the state need not be put again; each has a ``number``, a
        ``size``, and a ``token`` for :meth:`S3Writer.commit`.

        :raises NotFound: the upload was aborted or swept
        :raises Invalid: the state is malformed or of another bucket, or the server has other parts
        """
        upload = MultipartUpload.resume(self._bucket, state)
        publication = self._publication(upload.target, tried=True)
        try:
            upload.verify()
        except NotFound:
            # The other process may have completed the upload without getting the response.
            if not publication.succeeded():
                raise
        return self._writer(upload, publication)

    def read(
        self,
        location: S3Location,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> Reader:
        return S3Reader(self._bucket_of(location), location.key, offset, length)

    def stat(self, location: S3Location, *, context: RequestContext | None) -> Stat:
        head = self._bucket_of(location).head(location.key)
        if head is None:
            raise not_found(location)
        etag = {} if head.etag is None else {"etag": head.etag.strip('"')}
        return Stat(head.size, head.modified, {**head.metadata, **etag})

    def delete(self, location: S3Location, *, context: RequestContext | None) -> None:
        """Delete an object.

        :raises NotFound: there is no such object; S3 itself would report success
        :raises Forbidden: the object is in another bucket, and its metadata does not show that a
            store added it: a URI can name any object that the credentials give access to
        """
        bucket = self._bucket_of(location)
        head = bucket.head(location.key)
        if head is None:
            raise not_found(location)
        if not (self._is_own_bucket(location) or head.nonce):
            raise Forbidden(
                f"Object {location} was not deleted. Expected one in bucket {self._bucket.name}, "
                f"or one that a store has added (x-amz-meta-{NONCE}), got another. If this store's "
                f"objects were in bucket {bucket.name} once, list {location.host}/{bucket.name} in "
                "former_places."
            )
        bucket.delete(location.key)

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        """Yield every object whose key can be an id."""
        for page in self._client.pages("list_objects_v2", Bucket=self._bucket.name):
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if is_object_key(key):
                    location = self._location(key)
                    yield Entry(key, location, entry.get("Size"), entry.get("LastModified"))

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        """Yield every claim, and every multipart upload in the bucket, even of other software."""
        yield from list_uploads(self._bucket)
        yield from list_claims(self._bucket)

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        """Abort a multipart upload, or remove a claim that has expired."""
        key, bucket = incomplete.key, self._bucket
        if is_claim(key):
            return remove_expired_claim(bucket, key)
        object_id, _, upload_id = key.partition("/")
        if not upload_id or not is_object_key(object_id) or key.startswith(PREFIX):
            raise self.unknown_upload(key)
        return abort_upload(bucket, object_id, upload_id)

    def url(self, location: S3Location, *, expires: int, context: RequestContext | None) -> str:
        """Return a presigned URL.

        :raises Invalid: ``expires`` is less than a second or more than a week
        """
        if not 1 <= expires <= _LONGEST_URL:
            raise Invalid(f"Expected expires from 1 to {_LONGEST_URL} s (a week), got {expires!r}.")
        return self._client.presign(location.bucket, location.key, expires)

    def close(self) -> None:
        """Close the idle connections of this process."""
        self._client.close()

    def _writer(self, upload: MultipartUpload, publication: Publication) -> S3Writer:
        return S3Writer(upload, self._location(upload.target.key), self._settings, publication)

    def _publication(self, target: NewObject, *, tried: bool = False) -> Publication:
        if self.conf.s3_store_create_bucket_on_put and not self._bucket_ensured:
            self._bucket.ensure(self._client.region, named=bool(self._settings.region))
            self._bucket_ensured = True
        self._proof.ensure()
        return Publication(target, self._proof, tried=tried)

    def _bucket_of(self, location: S3Location) -> Bucket:
        return Bucket(self._client, location.bucket)

    def _location(self, object_id: str) -> S3Location:
        mine = self._settings
        return S3Location(mine.scheme, mine.host, mine.bucket, object_id)
