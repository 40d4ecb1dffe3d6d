"""The S3 backend: objects in a bucket of Amazon S3, Ceph's gateway or another S3 server."""

from store_lib.drivers.s3.driver import S3Driver
from store_lib.drivers.s3.location import S3Location

__all__ = ["S3Driver", "S3Location"]
