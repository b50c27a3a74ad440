"""Role assignments of Azure as it reads them, with their conditions, and the actions that calls of Blob Storage take.

Sources: "Azure role assignment condition format and syntax"; "Permissions for Blob service operations".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.clouds.azure.emulated import ACCOUNT, EmulatedAzure
from tests.clouds.rights_of_jobs import is_like
from tests.images.faults import Gate

BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_PATH = rf"@Resource\[{re.escape(BLOBS)}:path\]"
_DENIED = b"<?xml version='1.0'?><Error><Code>AuthorizationPermissionMismatch</Code><Message>no</Message></Error>"


def holds(condition: str, action: str, path: str) -> bool:
    """Whether a condition holds for an action on a blob."""
    terms: dict[str, Callable[[re.Match[str]], bool]] = {
        r"ActionMatches\{'([^']*)'\}": lambda term: term[1] == action,
        _PATH + r" ForAnyOfAnyValues:StringLike \{([^}]*)\}": lambda term: is_like(
            path, re.findall(r"'([^']*)'", term[1])
        ),
        _PATH + r" StringNotLike '([^']*)'": lambda term: not is_like(path, [term[1]]),
    }
    for pattern, value in terms.items():
        condition = re.sub(pattern, lambda term, value=value: str(value(term)), condition)
    assert set(re.findall(r"\w+", condition)) <= {"True", "False", "AND", "OR"}, condition
    return bool(eval(condition.replace("AND", "and").replace("OR", "or").replace("!", " not ")))


def allows(documents: Mapping[str, Any], assignee: str, action: str, path: str) -> bool:
    """Whether printed assignments let a job do something with a blob of the container."""
    role = documents["job_role"]
    return any(
        action in role["DataActions"] and holds(assignment["condition"], action, path)
        for assignment in documents["assignments"]
        if (assignment["assignee"], assignment["role"]) == (assignee, role["Name"])
    )


def gate(azure: EmulatedAzure, documents: Mapping[str, Any], people: Mapping[str, str]) -> Gate:
    """Return what stands before Blob Storage and asks Azure.

    :param people: client id → assignee. Others may do everything.
    """
    # With POST come batches: they take the right to write, on no path.
    verbs = {"GET": "read", "HEAD": "read", "PUT": "write", "POST": "write", "DELETE": "delete"}

    def decide(method: str, url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        client = azure.caller(headers.get("Authorization", "").removeprefix("Bearer "))
        path = unquote(urlsplit(url).path).removeprefix(f"/{ACCOUNT}/").partition("/")[2]
        action = f"{BLOBS}/{verbs[method]}"
        if client not in people or allows(documents, people[client], action, path):
            return None
        return 403, {"x-ms-error-code": "AuthorizationPermissionMismatch", "Content-Type": "application/xml"}, _DENIED

    return decide
