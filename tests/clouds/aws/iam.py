"""Policies of IAM as AWS reads them, and the rights that calls of S3 take: its "Service Authorization Reference"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.clouds.rights_of_jobs import is_like


def allows(policy: Mapping[str, Any], action: str, resource: str) -> bool:
    """Whether IAM would let a call through, conditions aside."""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if action in statement["Action"] and is_like(resource, statement["Resource"])
    }
    return effects == {"Allow"}


def rights(method: str, path: str, query: Mapping[str, str], body: bytes) -> Iterator[tuple[str, str]]:
    """Return the actions of a call of S3, each with its resource.

    :param path: not quoted.
    """
    bucket, _, key = path.strip("/").partition("/")
    if "delete" in query:
        for found in re.findall(r"<Key>(.*?)</Key>", body.decode()):
            yield "s3:DeleteObject", f"arn:aws:s3:::{bucket}/{found}"
    elif not key:
        yield "s3:ListBucket", f"arn:aws:s3:::{bucket}"
    elif "uploadId" in query and method == "DELETE":
        yield "s3:AbortMultipartUpload", f"arn:aws:s3:::{bucket}/{key}"
    else:
        actions = {"GET": "GetObject", "HEAD": "GetObject", "DELETE": "DeleteObject"}
        yield f"s3:{actions.get(method, 'PutObject')}", f"arn:aws:s3:::{bucket}/{key}"
