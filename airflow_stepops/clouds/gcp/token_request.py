"""How google-auth asks for access tokens: with the HTTP client of all other calls. Its own loads a second one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from google.auth.exceptions import TransportError


@dataclass(frozen=True)
class TokenResponse:
    """What google-auth reads of an answer: a ``google.auth.transport.Response``."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class TokenRequest:
    """A transport of google-auth: a ``google.auth.transport.Request``.

    :param client: whose time-outs hold.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> TokenResponse:
        """Return the answer to a call.

        :raises TransportError: when there is none.
        """
        try:
            answer = self._client.request(method, url, content=body, headers=headers)
        except httpx.TransportError as error:
            raise TransportError(error) from error  # type: ignore[no-untyped-call]
        return TokenResponse(answer.status_code, answer.headers, answer.content)
