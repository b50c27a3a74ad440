"""Bindings of IAM as Google reads them, and the permissions that calls of Cloud Storage take.

Sources: "Attribute reference for IAM Conditions"; "IAM permissions for XML requests".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from werkzeug import Response

from tests.clouds.gcp.emulated import Answer, Api, Call

_OPERATORS = {"&&": " and ", "||": " or ", "!": " not ", "!=": "!="}
_PREFIX = "storage.googleapis.com/objectListPrefix"


class Text(str):
    """A string with the functions that conditions have."""

    def startsWith(self, text: str) -> bool:
        return self.startswith(text)

    def endsWith(self, text: str) -> bool:
        return self.endswith(text)

    def extract(self, template: str) -> Text:
        before, _, after = re.split(r"\{(\w+)\}", template)
        start = self.find(before)
        rest = self[start + len(before) :]
        end = rest.find(after) if after else len(rest)
        return Text("" if start < 0 or end < 0 else rest[:end])


def holds(expression: str, name: str, prefix: str = "") -> bool:
    """Whether a condition holds.

    :param name: of the resource.
    :param prefix: of the objects that are listed.
    """
    pieces = re.split(r'("[^"]*")', expression)  # every second one is a string
    pieces[::2] = [re.sub(r"&&|\|\||!=?", lambda found: _OPERATORS[found[0]], piece) for piece in pieces[::2]]
    api = SimpleNamespace(getAttribute=lambda key, default: Text(prefix if key == _PREFIX and prefix else default))
    return bool(eval("".join(pieces), {}, {"resource": SimpleNamespace(name=Text(name)), "api": api}))


def allows(documents: Mapping[str, Any], member: str, permission: str, name: str, prefix: str = "") -> bool:
    """Whether printed bindings give somebody a permission on a resource of a bucket."""
    roles = {f"stepops_{kind}": documents[f"{kind}_role"]["includedPermissions"] for kind in ("reading", "writing")}
    return any(
        member in binding["members"]
        and permission in roles.get(binding["role"].rpartition("/")[2], ())
        and ("condition" not in binding or holds(binding["condition"]["expression"], name, prefix))
        for binding in documents["bindings"]
        if name.startswith(f"projects/_/{binding['resource']}")
    )


def permissions(call: Call, existing: Collection[str]) -> Iterator[str]:
    """Return the permissions that a call of the XML API takes.

    :param existing: names of the objects that there are.
    """
    key = call.path.lstrip("/").partition("/")[2]
    if not key:
        yield "storage.objects.list"
    elif call.method in ("GET", "HEAD"):
        yield "storage.objects.get"
    elif call.method == "DELETE":
        yield "storage.multipartUploads.abort" if "uploadId" in call.query else "storage.objects.delete"
    else:
        yield "storage.objects.create"
        in_parts = "uploads" in call.query or "uploadId" in call.query
        if in_parts:
            yield "storage.multipartUploads.create"
        completes = call.method == "POST" and "uploadId" in call.query
        if key in existing and (completes or not in_parts):
            yield "storage.objects.delete"


def guarded(inner: Api, documents: Mapping[str, Any], existing: Any) -> Api:
    """Return Cloud Storage that asks IAM.

    :param existing: returns the names of the objects of a bucket.
    """

    def answer(call: Call) -> Answer:
        bucket, _, key = call.path.lstrip("/").partition("/")
        name = f"projects/_/buckets/{bucket}" + (f"/objects/{key}" if key else "")
        for permission in permissions(call, existing(bucket)):
            if not allows(documents, f"serviceAccount:{call.caller}", permission, name, call.query.get("prefix", "")):
                denied = f"<Error><Code>AccessDenied</Code><Details>{call.caller}: {permission}</Details></Error>"
                return Response(denied, 403, content_type="application/xml")
        return inner(call)

    return answer
