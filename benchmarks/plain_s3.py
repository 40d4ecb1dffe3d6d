"""Uploads and downloads with S3 clients, as the limits for the s3 store."""

from datetime import timedelta
from typing import Any

from benchmarks.child import BLOCK, Answer, Measures, Request, compare

#: Part size in bytes and number of concurrent parts of uploads.
PART, THREADS = 16 * BLOCK, 4


def _uri(request: Request) -> str:
    options = request["options"]
    host = options["s3_store_host"].partition("://")[2]
    return f"s3://{host}/{options['s3_store_bucket']}/{request['object_id']}"


def transfer_manager(request: Request, measures: Measures) -> Answer:
    """Upload a file with boto3's transfer manager."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    options = request["options"]
    client: Any = boto3.client(
        "s3",
        endpoint_url=options["s3_store_host"],
        aws_access_key_id=options["s3_store_access_key"],
        aws_secret_access_key=options["s3_store_secret_key"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket = options["s3_store_bucket"]
    config = TransferConfig(
        multipart_chunksize=PART, max_concurrency=THREADS, preferred_transfer_client="classic"
    )
    measures.idle()
    with measures.phase(), open(request["source"], "rb") as source:
        client.upload_fileobj(source, bucket, request["object_id"], Config=config)
    return {"uri": _uri(request), "size": request["size"], "digests": {}}


def _obstore(request: Request) -> Any:
    from obstore.store import S3Store  # type: ignore[import-not-found, unused-ignore]

    options = request["options"]
    return S3Store(
        options["s3_store_bucket"],
        endpoint=options["s3_store_host"],
        access_key_id=options["s3_store_access_key"],
        secret_access_key=options["s3_store_secret_key"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=600)},
    )


def obstore_put(request: Request, measures: Measures) -> Answer:
    """Upload a file with obstore."""
    store = _obstore(request)
    measures.idle()
    with measures.phase(), open(request["source"], "rb") as source:
        store.put(
            request["object_id"],
            source,
            chunk_size=PART,
            max_concurrency=THREADS,
            use_multipart=True,
        )
    return {"uri": _uri(request), "size": request["size"], "digests": {}}


def obstore_get(request: Request, measures: Measures) -> Answer:
    """Read an object with obstore by iterating."""
    store = _obstore(request)
    key = request["uri"].rpartition("/")[2]
    got = 0
    measures.idle()
    with measures.phase():
        for piece in store.get(key).stream():
            got += len(piece)
    compare((bytes(piece) for piece in store.get(key).stream()), request["source"])
    return {"size": got}
