"""The s3 driver: its options, and what it can do with a bucket."""

from collections.abc import Iterator
from typing import Any, ClassVar

from oslo_config import cfg

from store_lib.clients.library_calls import LibraryCall
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, PartWriter, Reader, Stat
from store_lib.drivers.s3.client import NONCE, Bucket, Client, NewObject
from store_lib.drivers.s3.copying import Copy
from store_lib.drivers.s3.location import S3Location, is_object_key
from store_lib.drivers.s3.multipart import PartSizes, abort_upload, list_uploads
from store_lib.drivers.s3.options import ATOMIC, LARGEST_PUT, MIB, OPTIONS, Settings, settings_of
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
from store_lib.exceptions import (
    Forbidden,
    Invalid,
    NotFound,
    StoreError,
)
from store_lib.location import Location

#: Seconds for which a presigned URL can be good at most.
_LONGEST_URL = 7 * 24 * 3600


class S3Driver(Driver[S3Location]):
    """Stores objects in a bucket; an object's key is its id."""

    schemes: ClassVar[tuple[str, ...]] = S3Location.schemes
    location_class: ClassVar[type[Location]] = S3Location
    options: ClassVar[tuple[cfg.Opt, ...]] = OPTIONS
    ranges = True
    read_concurrency = 4
    # A server near by gives more than this by one connection.
    single_stream_rate = 256 * MIB
    #: Bytes above which a copy within the server is made in parts, and of such a part.
    copy_limit = LARGEST_PUT
    copy_part = 512 * MIB

    _client: Client
    _settings: Settings
    _server: str
    _bucket: Bucket
    _proof: Proof
    _bucket_made = False

    @property
    def url_prefix(self) -> str:
        """What the URIs of new objects begin with, but for the slash."""
        return f"{self._settings.scheme}://{self._settings.host}/{self._settings.bucket}"

    def _unusable(self, error: Exception) -> StoreError:
        if isinstance(error, ImportError):
            return self.misconfigured(
                f"the s3 driver needs boto3 ({error}): pip install store_lib[s3]"
            )
        # What boto3 says of its own files, or of a region, is ValueError or BotoCoreError.
        return self.misconfigured(str(error))

    def configure(self) -> None:
        """Check the options and make a client; nothing is connected to.

        :raises BadStoreConfiguration: an option is no good, or boto3 is not installed
        """
        with LibraryCall(self._unusable):
            self._settings = settings_of(self.conf)
            self._client = Client(self.conf, self._settings, lambda call: self.retry(call))
            self._client.open()
        self._server = self._location("").server
        self._bucket = Bucket(self._client, self._settings.bucket)
        self.create_only = (
            CreateOnly.ATOMIC if self._settings.create_only == ATOMIC else CreateOnly.CHECKED
        )
        self._proof = Proof(self._bucket, self._settings.create_only)

    def owns(self, location: Location) -> bool:
        """Tell whether ``location`` is on this server, in whichever bucket."""
        place = _checked(location)
        return place.server == self._server or self.conf.moved_from(
            place.host, f"{place.host}/{place.bucket}"
        )

    def holds(self, location: Location) -> bool:
        """Tell whether ``location`` is in this store's bucket, or in one that was."""
        place = _checked(location)
        return self.owns(place) and self._is_own_bucket(place)

    def _is_own_bucket(self, place: S3Location) -> bool:
        return place.bucket == self._settings.bucket or self.conf.moved_from(
            f"{place.host}/{place.bucket}"
        )

    def here(self, location: Location) -> S3Location:
        """Return the location of the same bucket and key on this server."""
        place = _checked(location)
        return S3Location(self._settings.scheme, self._settings.host, place.bucket, place.key)

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> PartWriter:
        """Begin an upload.

        :raises Duplicate: an object of this id is there
        :raises StorageFull: ``size`` is more than S3 can hold
        """
        sizes = PartSizes(size, self._settings.part, self._settings.equal_parts)
        sizes.check()
        target = NewObject(self._bucket, object_id, nonce)
        publication = self._publication(target)
        if size is None or size > S3Writer.chunk_size:
            # Before much is read and sent in vain; a small add fails soon enough.
            publication.check()
        return S3Writer(target, self._location(object_id), sizes, self._settings, publication)

    def read(self, location: Location, offset: int, length: int | None, *, context: Any) -> Reader:
        """Open an object by a GET.

        :raises NotFound: there is no such object, or no such bucket
        """
        place = _checked(location)
        return S3Reader(Bucket(self._client, place.bucket), place.key, offset, length)

    def stat(self, location: Location, *, context: Any) -> Stat:
        """Tell of an object without reading it."""
        place = _checked(location)
        found = Bucket(self._client, place.bucket).head(place.key)
        if found is None:
            raise _missing(place)
        told = {} if found.etag is None else {"etag": found.etag.strip('"')}
        return Stat(found.size, found.modified, {**found.metadata, **told})

    def delete(self, location: Location, *, context: Any) -> None:
        """Remove an object.

        :raises NotFound: there is no such object; S3 itself would not say so
        :raises Forbidden: it is in another bucket, and does not say that a store made it: any
            object that the keys open can stand in a URI
        """
        place = _checked(location)
        bucket = Bucket(self._client, place.bucket)
        found = bucket.head(place.key)
        if found is None:
            raise _missing(place)
        if not (self._is_own_bucket(place) or found.nonce):
            raise Forbidden(
                f"Object {place} was not deleted. Expected one in bucket {self._settings.bucket}, "
                f"or one that a store has added (x-amz-meta-{NONCE}), got another. If this store's "
                f"objects were in bucket {place.bucket} once, list {place.host}/{place.bucket} in "
                "former_places."
            )
        bucket.delete(place.key)

    def list(self, *, context: Any) -> Iterator[Entry]:
        """Yield every object whose key can be an id."""
        for page in self._client.pages("list_objects_v2", Bucket=self._bucket.name):
            for each in page.get("Contents", ()):
                key = each["Key"]
                if is_object_key(key):
                    place = self._location(key)
                    yield Entry(key, place, each.get("Size"), each.get("LastModified"))

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        """Yield every upload in parts that has not ended, anybody's, and every claim."""
        yield from list_uploads(self._bucket)
        yield from list_claims(self._bucket)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        """Abort a multipart upload, or remove a claim that has expired."""
        key, bucket = incomplete.key, self._bucket
        if is_claim(key):
            return remove_expired_claim(bucket, key)
        object_id, _, upload_id = key.partition("/")
        if not upload_id or not is_object_key(object_id) or key.startswith(PREFIX):
            raise Invalid(
                f"Expected the key of a leftover in bucket {bucket.name}, got {key!a}. Take it "
                "from a listing of this store."
            )
        return abort_upload(bucket, object_id, upload_id)

    def copy(self, location: Location, object_id: str, *, nonce: str, context: Any) -> Location:
        """Have the server make an object from another one of it."""
        target = NewObject(self._bucket, object_id, nonce)
        Copy(
            target,
            _checked(location),
            self._publication(target),
            limit=self.copy_limit,
            part=self.copy_part,
        ).make()
        return self._location(object_id)

    def url(self, location: Location, *, expires: int, context: Any) -> str:
        """Return a presigned URL.

        :raises Invalid: ``expires`` is not between a second and a week
        """
        if not 1 <= expires <= _LONGEST_URL:
            raise Invalid(f"Expected expires from 1 to {_LONGEST_URL} s (a week), got {expires!r}.")
        place = _checked(location)
        return self._client.presign(place.bucket, place.key, expires)

    def close(self) -> None:
        """Close the idle connections of this process."""
        self._client.close()

    def _publication(self, target: NewObject) -> Publication:
        if self.conf.s3_store_create_bucket_on_put and not self._bucket_made:
            self._bucket.ensure(self._client.region, named=bool(self._settings.region))
            self._bucket_made = True
        self._proof.ensure()
        return Publication(target, self._proof)

    def _location(self, object_id: str) -> S3Location:
        mine = self._settings
        return S3Location(mine.scheme, mine.host, mine.bucket, object_id)


def _checked(location: Location) -> S3Location:
    assert isinstance(location, S3Location), type(location)
    return location


def _missing(place: S3Location) -> NotFound:
    return NotFound(f"There is no object {place}.")
