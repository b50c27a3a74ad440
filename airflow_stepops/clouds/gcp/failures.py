"""What an error of Google means: whether it may pass by itself, and else what kind of end it is and what to do."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_stepops.errors import EndKind, JobRefusedError, TransientServiceError

if TYPE_CHECKING:
    import httpx
    from google.auth.exceptions import GoogleAuthError

#: Somebody stopped waiting for the call.
_GIVEN_UP = frozenset({408, 499})
_PASSING = _GIVEN_UP | {429}
#: Two changes of one thing at once; Google says so with 409, which else means that something is there already.
_ABORTED = "ABORTED"
_THROTTLED = frozenset({"RATE_LIMIT_EXCEEDED", "rateLimitExceeded", "userRateLimitExceeded"})
#: A quota of machines comes as 429 like a throttle does, but does not pass in minutes.
_FULL = re.compile(r"quota metrics? exceed", re.IGNORECASE)
_PERMISSION = re.compile(r"\bpermission:? ['\"]?([a-z]\w*(?:\.\w+){1,3})\b", re.IGNORECASE)
_SECRETS = re.compile(r"\bya29\.[\w.-]+|\beyJ[\w-]+\.[\w-]+\.[\w-]+")
#: What helps where no permission is missing, by Google's reason.
_ADVICE = {
    "SERVICE_DISABLED": "Enable it: gcloud services enable {service}",
    "BILLING_DISABLED": "Turn on billing for the project",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": "Give the machine the scope cloud-platform, or the Airflow connection "
    "credentials of its own",
    "SECURITY_POLICY_VIOLATED": "Let the Airflow connection into the service perimeter of the project",
}
_BAD_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"

ADVICE_ON_CREDENTIALS = (
    "Check the Airflow connection of type google_cloud_platform (key, credential configuration, impersonation chain), "
    "or the service account of the machine where there is none"
)


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    :param message: one line, without secrets.
    :param kind: of end; ``None`` for what may pass by itself.
    :param status: HTTP status of the answer; 0 for none.
    :param code: Google's word for it, such as ``NOT_FOUND``; ``""`` for none.
    :param expired: whether the credentials are too old or not good: new ones may help.
    :param unclear: whether Google may have done what it was asked to.
    """

    message: str
    kind: EndKind | None = None
    status: int = 0
    code: str = ""
    expired: bool = False
    unclear: bool = False

    def error(self) -> TransientServiceError | RefusedCallError:
        """Return the error of job services that it is."""
        if self.kind is not None:
            return RefusedCallError(self, self.kind)
        return (UnclearCallError if self.unclear else TransientServiceError)(self.message)


class UnclearCallError(TransientServiceError):
    """A call broke after it was sent: Google may have done what it was asked to, or may still do it."""


class RefusedCallError(JobRefusedError):
    """Google refuses a call; the same call cannot do better.

    :param failure: with ``status`` and ``code``, such as 404 and ``NOT_FOUND``.
    """

    def __init__(self, failure: Failure, kind: EndKind) -> None:
        super().__init__(failure.message, kind)
        self.failure = failure

    @property
    def is_not_found(self) -> bool:
        """Whether Google says that there is no such thing."""
        return self.failure.status == 404

    @property
    def is_there_already(self) -> bool:
        """Whether Google says that there is such a thing already."""
        return self.failure.status == 409


def read_answer(response: httpx.Response) -> Failure:
    """Return what an answer other than success means."""
    request, status = response.request, response.status_code
    failure = _of_the_service(_what(request.method, request.url), status, _document(response.text))
    return dataclasses.replace(failure, unclear=status in _GIVEN_UP or status >= 500)


def read_no_answer(method: str, url: httpx.URL, error: httpx.TransportError) -> Failure:
    """Return what it means that a call got no answer."""
    import httpx

    said = _one_line(str(error))
    if _BAD_CERTIFICATE in said:
        return _not_trusted(url.host, said)
    message = f"{_what(method, url)}: no answer ({type(error).__name__}{f': {said}' if said else ''})"
    not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return Failure(message, unclear=not not_sent)


def read_no_credentials(error: GoogleAuthError) -> Failure:
    """Return what it means that there are no credentials, or that Google gives no token for them."""
    from google.auth import exceptions

    cause = error.__cause__ or error.__context__
    on_the_way = (exceptions.TransportError, exceptions.TimeoutError, exceptions.ResponseError)
    said = _one_line(str(error.args[0]) if error.args else type(error).__name__)
    if _BAD_CERTIFICATE in said:
        return _not_trusted("the service that gives access tokens", said)
    if error.retryable or isinstance(error, on_the_way) or isinstance(cause, on_the_way):
        return Failure(f"Google gave no access token: {said}")
    answer = _document(error.args[1]) if len(error.args) > 1 else {}
    if isinstance(answer.get("error"), dict):  # of a service account that is impersonated
        status = answer["error"].get("code")
        return _of_the_service("Google's access token", status if isinstance(status, int) else 403, answer)
    if isinstance(error, exceptions.DefaultCredentialsError):
        return Failure(f"there are no Google credentials: {said}. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION)
    return Failure(
        f"Google does not take the credentials: {said}. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION, expired=True
    )


def _not_trusted(who: str, said: str) -> Failure:
    advice = "name the file of its authority in the variable SSL_CERT_FILE"
    return Failure(f"the certificate of {who} is not trusted: {said}; {advice}.", EndKind.INVALID_REQUEST)


def _of_the_service(what: str, status: int, answer: Mapping[str, Any]) -> Failure:
    found = answer.get("error")
    if not isinstance(found, dict):
        if status in _PASSING or status >= 500:
            return Failure(f"{what} answers {status}", status=status)
        return Failure(f"{what}: something on the way answers {status} in the place of Google", status=status)
    code, said = str(found.get("status", "")), _one_line(str(found.get("message", "")))
    message = f"{what} answers {status}{f' {code}' if code else ''}{f': {said}' if said else ''}"
    reason, metadata = _details(found)
    if status == 429 and _FULL.search(said):
        return Failure(f"{message}. Ask for more in the console: IAM & Admin, Quotas.", EndKind.CAPACITY, status, code)
    if status in _PASSING or status >= 500 or code == _ABORTED or reason in _THROTTLED:
        return Failure(message, None, status, code)
    if status == 401:
        return Failure(f"{message}. {ADVICE_ON_CREDENTIALS}.", EndKind.PERMISSION, status, code, expired=True)
    if status == 403:
        return Failure(f"{message}. {_allowing(reason, metadata, said)}.", EndKind.PERMISSION, status, code)
    return Failure(message, EndKind.INVALID_REQUEST, status, code)


def _allowing(reason: str, metadata: Mapping[str, Any], said: str) -> str:
    """Return what helps against a 403."""
    if reason in _ADVICE:
        return _ADVICE[reason].format(service=metadata.get("service", "its API"))
    named = _PERMISSION.search(said)
    permission = metadata.get("permission") or (named[1] if named else "")
    return f"Allow {permission or 'this'} to the service account or user of the Airflow connection"


def _details(error: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the reason that the details of an error give, and what they say beside it."""
    details = [detail for detail in _list(error, "details") if str(detail.get("@type", "")).endswith("ErrorInfo")]
    if details:
        metadata = details[0].get("metadata")
        return str(details[0].get("reason", "")), metadata if isinstance(metadata, dict) else {}
    old = _list(error, "errors")
    return (str(old[0].get("reason", "")) if old else ""), {}


def _list(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = document.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _document(text: object) -> Mapping[str, Any]:
    """Return a JSON object, ``{}`` for what is none."""
    if isinstance(text, dict):
        return text
    try:
        found = json.loads(text) if isinstance(text, str | bytes) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _what(method: str, url: httpx.URL) -> str:
    return f"Google {method} {url.host}{url.path}"


def _one_line(text: str) -> str:
    return _SECRETS.sub("***", " ".join(text.split())).rstrip(".")
