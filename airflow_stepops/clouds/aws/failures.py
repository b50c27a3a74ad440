"""What an error of boto3 means: whether it may pass by itself, and else what kind of end it is and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from airflow_stepops.errors import EndKind

_THROTTLED = re.compile(
    r"Throttl|TooManyRequests|RequestLimitExceeded|RequestThrottled|SlowDown|BandwidthLimitExceeded"
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_PASSING = frozenset({"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"})
_FULL = frozenset({"ResourceLimitExceeded", "ServiceQuotaExceededException", "LimitExceededException"})
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedException", "AuthorizationError"}
)
#: Keys that the service does not know or take; what it says about them may quote the request.
_WRONG_KEYS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "InvalidToken",
        "AuthFailure",
        "OptInRequired",
    }
)
_NO_ANSWER = (HTTPClientError, ConnectionError, ResponseStreamingError, IncompleteReadError)
_NO_KEYS = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, TokenRetrievalError, SSOError)
_ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")
_BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"

_ADVICE_ON_KEYS = (
    "Check the Airflow connection of type aws (keys, profile, role), or the role of the machine where there is none"
)


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    :param message: one line, without secrets.
    :param kind: of end; ``None`` for what may pass by itself.
    :param expired: whether the credentials are too old: new ones help.
    """

    message: str
    kind: EndKind | None = None
    expired: bool = False


def read_failure(error: ClientError | BotoCoreError | ResponseParserError) -> Failure:
    """Return what an error means."""
    if isinstance(error, ResponseParserError):
        return Failure("something on the way answers in the place of AWS: boto3 cannot read it")
    return _of_the_service(error) if isinstance(error, ClientError) else _on_the_way(error)


def code_of(error: ClientError) -> str:
    """Return the service's code for an error, such as ``AccessDeniedException``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _of_the_service(error: ClientError) -> Failure:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    said = _one_line(str(error.response.get("Error", {}).get("Message", "")))
    what = f"AWS {error.operation_name} answers {code}{f': {said}' if said else ''}"
    if code in _EXPIRED:
        return Failure(f"AWS {error.operation_name} answers {code}: the credentials are too old", expired=True)
    if code in _FULL:
        return Failure(f"{what}. Ask for a higher quota in the console of Service Quotas.", EndKind.CAPACITY)
    if code in _PASSING or _THROTTLED.search(code) or status == 429 or status >= 500:
        return Failure(what)
    if code in _WRONG_KEYS:
        return Failure(
            f"AWS {error.operation_name} does not take the credentials ({code}). {_ADVICE_ON_KEYS}.",
            EndKind.PERMISSION,
            expired=True,
        )
    if code in _DENIED or status in (401, 403):
        named = _ACTION.search(said)
        action = named[1] if named else error.operation_name
        return Failure(f"{what}. Allow {action} to the role or user of the Airflow connection.", EndKind.PERMISSION)
    return Failure(what, EndKind.INVALID_REQUEST)


def _on_the_way(error: BotoCoreError) -> Failure:
    said = _one_line(str(error))
    if isinstance(error, SSLError) and _BAD_CERTIFICATE in said:
        advice = "name its authority's file in 'verify' of the Airflow connection's extra, or in AWS_CA_BUNDLE"
        return Failure(
            f"the certificate of the AWS endpoint is not trusted: {said}; {advice}.", EndKind.INVALID_REQUEST
        )
    if isinstance(error, _NO_ANSWER):
        return Failure(f"AWS gave no answer: {said}")
    if isinstance(error, _NO_KEYS):
        return Failure(f"there are no AWS credentials: {said}. {_ADVICE_ON_KEYS}.", EndKind.PERMISSION)
    if isinstance(error, CredentialRetrievalError):
        return Failure(f"the AWS credentials could not be fetched: {said}")
    if isinstance(error, NoRegionError):
        return Failure(
            "no AWS region is set: give 'region' in the stack, or region_name in the Airflow connection's extra.",
            EndKind.INVALID_REQUEST,
        )
    return Failure(f"boto3 refuses the request: {said}", EndKind.INVALID_REQUEST)


def _one_line(text: str) -> str:
    return _ACCESS_KEY.sub("***", " ".join(text.split()))
