"""What an error of Azure means: whether it may pass by itself, and else what kind of end it is and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_stepops.errors import EndKind, JobRefusedError, TransientServiceError

if TYPE_CHECKING:
    import httpx
    from azure.core.exceptions import AzureError

_PASSING = frozenset({408, 429})
#: Two changes of one thing at once, and what Azure did not finish: the same call may do better.
_PASSING_CODES = frozenset(
    {"Conflicted", "AnotherOperationInProgress", "OperationInProgress", "RetryableError", "TransientError"}
)
#: Quotas do not pass in minutes.
_FULL = re.compile(r"quota|\bSkuNotAvailable\b|ZonalAllocationFailed|AllocationFailed|not enough (free )?cores", re.I)
#: Entra ID is busy, or could not reach another service of its own.
_PASSING_LOGIN = re.compile(r"temporarily_unavailable|AADSTS(50196|90006|90024|90033|90055)\b")
#: MSAL keeps no more of an answer that is none of Entra ID's own.
_LOGIN_STATUS = re.compile(r"HTTP Error: (\d{3})\b")
_LOGIN_CODE = re.compile(r"AADSTS\d+")
_NOBODY = "failed to retrieve a token from the included credentials"
_ACTION = re.compile(
    r"perform (?:the )?action(?:\(s\))? '([^']+)'|\b(Microsoft\.\w+(?:/\w+)+/(?:read|write|action|delete))\b"
)
_SECRETS = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=[?&]sig=)[^&\s\"']+|(?<=AccountKey=)[^;\s\"']+")
#: What Entra ID adds for its own people, which changes each time.
_TRACE = re.compile(r"\s*(Trace ID|Correlation ID|Timestamp):.*$")
_BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"

ADVICE_ON_CREDENTIALS = (
    "Check the Airflow connection of type azure (client id, secret, tenantId, managed identity), or the identity of "
    "the machine where there is none"
)


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    :param message: one line, without secrets.
    :param kind: of end; ``None`` for what may pass by itself.
    :param status: HTTP status of the answer; 0 for none.
    :param code: Azure's word for it, such as ``ResourceNotFound``; ``""`` for none.
    :param expired: whether the credentials are too old or not good: new ones may help.
    """

    message: str
    kind: EndKind | None = None
    status: int = 0
    code: str = ""
    expired: bool = False

    def error(self) -> TransientServiceError | RefusedCallError:
        """Return the error of job services that it is."""
        return TransientServiceError(self.message) if self.kind is None else RefusedCallError(self, self.kind)


class RefusedCallError(JobRefusedError):
    """Azure refuses a call; the same call cannot do better.

    :param failure: with ``status`` and ``code``, such as 404 and ``ResourceNotFound``.
    """

    def __init__(self, failure: Failure, kind: EndKind) -> None:
        super().__init__(failure.message, kind)
        self.failure = failure

    @property
    def is_not_found(self) -> bool:
        """Whether Azure says that there is no such thing."""
        return self.failure.status == 404

    @property
    def is_there_already(self) -> bool:
        """Whether Azure says that there is such a thing already."""
        return self.failure.status == 409


def read_answer(response: httpx.Response) -> Failure:
    """Return what an answer other than success means."""
    request = response.request
    return _of_the_service(_what(request.method, request.url), response.status_code, _document(response.text))


def read_no_answer(method: str, url: httpx.URL, error: httpx.TransportError) -> Failure:
    """Return what it means that a call got no answer."""
    said = one_line(str(error))
    if _BAD_CERTIFICATE in said:
        return _not_trusted(url.host, said, "SSL_CERT_FILE")
    return Failure(f"{_what(method, url)}: no answer ({type(error).__name__}{f': {said}' if said else ''})")


def read_other_answer(response: httpx.Response) -> Failure:
    """Return what it means that an answer of success holds no JSON."""
    what = _what(response.request.method, response.request.url)
    return Failure(f"{what}: something on the way answers in the place of Azure", status=response.status_code)


def read_no_credentials(error: AzureError, *, worked: bool) -> Failure:
    """Return what it means that there are no credentials, or that Entra ID gives no token for them.

    :param worked: whether there were some a short time ago: what gives them may be away.
    """
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError
    from azure.identity import CredentialUnavailableError

    said = _TRACE.sub("", one_line(error.message)).rstrip(".")
    told = _LOGIN_STATUS.search(said)
    status = int(told[1]) if told else getattr(error, "status_code", None) or 0
    if _BAD_CERTIFICATE in said:
        return _not_trusted("the service that gives access tokens", said, "REQUESTS_CA_BUNDLE")
    if isinstance(error, CredentialUnavailableError) or _NOBODY in said:
        if worked:
            return Failure(f"the identity of this machine gives no access token for now: {said}")
        return Failure(f"there are no Azure credentials: {said}. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION)
    unheard = isinstance(error.__cause__ or error, ServiceRequestError | ServiceResponseError)
    if unheard or status in _PASSING or status >= 500 or _PASSING_LOGIN.search(said):
        return Failure(f"Microsoft Entra ID gave no access token: {said}", status=status)
    named = _LOGIN_CODE.search(said)
    return Failure(
        f"Microsoft Entra ID does not take the credentials: {said}. {ADVICE_ON_CREDENTIALS}.",
        EndKind.PERMISSION,
        status,
        named[0] if named else "",
        expired=True,
    )


def one_line(text: str) -> str:
    """Return what Azure says on one line, without secrets."""
    return _SECRETS.sub("***", " ".join(text.split())).rstrip(".")


def _not_trusted(who: str, said: str, variable: str) -> Failure:
    advice = f"name the file of its authority in the variable {variable}"
    return Failure(f"the certificate of {who} is not trusted: {said}; {advice}.", EndKind.INVALID_REQUEST)


def _of_the_service(what: str, status: int, answer: Mapping[str, Any]) -> Failure:
    found = answer.get("error", answer)
    if not isinstance(found, dict) or not ("code" in found or "message" in found):
        if status in _PASSING or status >= 500:
            return Failure(f"{what} answers {status}", status=status)
        if status == 401:
            return Failure(f"{what} answers 401. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION, 401, expired=True)
        return Failure(f"{what}: something on the way answers {status} in the place of Azure", status=status)
    code, said = _code(found), one_line(str(found.get("message") or ""))
    message = f"{what} answers {status}{f' {code}' if code else ''}{f': {said}' if said else ''}"
    if status in _PASSING or status >= 500 or code in _PASSING_CODES:
        return Failure(message, None, status, code)
    if status == 401:
        return Failure(f"{message}. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION, status, code, expired=True)
    if status == 403:
        return Failure(f"{message}. {_allowing(said)}.", EndKind.PERMISSION, status, code)
    if _FULL.search(f"{code} {said}"):
        return Failure(f"{message}. Ask for more in the portal: Quotas.", EndKind.CAPACITY, status, code)
    return Failure(message, EndKind.INVALID_REQUEST, status, code)


def _allowing(said: str) -> str:
    """Return what helps against a 403."""
    named = _ACTION.search(said)
    return (
        f"Allow {named[1] if named else 'this'} to the identity of the Airflow connection, with a role at this resource"
    )


def _code(error: Mapping[str, Any]) -> str:
    """Return Azure's word: the innermost one where Azure ML says ``UserError`` for all."""
    code = str(error.get("code") or "")
    inner = error.get("innererror") or error.get("innerError")
    while isinstance(inner, dict) and inner.get("code") and code in ("", "UserError"):
        code = str(inner["code"])
        inner = inner.get("innererror") or inner.get("innerError")
    return code


def _document(text: str) -> Mapping[str, Any]:
    """Return a JSON object, ``{}`` for what is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _what(method: str, url: httpx.URL) -> str:
    return f"Azure {method} {url.host}{url.path}"
