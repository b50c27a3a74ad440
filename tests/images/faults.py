"""A proxy in front of a real service that breaks chosen requests: cut, reset, damaged, refused, slow, no answer."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_CHUNK = 64 << 10
_LONGEST_WAIT = 120.0


@dataclass
class Fault:
    """What goes wrong with the next requests that match.

    :param kind: ``status`` (answered by the proxy, the registry sees nothing) · ``reset`` (no answer) · ``hang`` (no
        answer, and the connection stays) · ``go_on`` (nothing goes wrong; for ``on_answered``) · ``cut_request`` (the
        registry gets half of the body) · ``cut_answer`` · ``damage_request`` and ``damage_answer`` (one byte is
        changed) · ``lose_answer`` (the registry did it, the client never hears) · ``fail_after`` (the registry did it,
        the client gets the status) · ``header`` (headers of the answer are replaced) · ``as`` (the answer comes with
        another status) · ``slow`` (small pieces).
    :param method: of the request.
    :param path: regular expression, searched in path and query, and the operation of AWS behind it: ``/#GetRole``.
    :param times: how many requests are hit.
    :param after: how many that match are let through first, those that another fault hits not counted.
    :param body: of the answer with a ``status``.
    :param on_sent: called when the registry has the whole request, and before its answer is read.
    :param on_answered: called when the client was sent the whole answer.
    """

    kind: str
    method: str
    path: str = ""
    times: int = 1
    after: int = 0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    on_sent: Callable[[], None] | None = None
    on_answered: Callable[[], None] | None = None
    hit: int = 0


@dataclass(frozen=True)
class Seen:
    """A request that came to the proxy; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    size: int


@dataclass(frozen=True)
class Tls:
    """Files of a server's certificate and its key, and of the certificate of the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


#: Decides on a request by method, path and headers: status, headers and body of an answer, ``None`` to let it through.
Gate = Callable[[str, str, Mapping[str, str]], tuple[int, dict[str, str], bytes] | None]


class FaultyProxy:
    """Forwards to a registry, with faults.

    :param host: of the proxy, to be used as the registry.
    :param gate: asked about each request that no fault answers.
    :ivar tls: with which the registry is called.
    """

    def __init__(self, registry: str, host: str, gate: Gate | None = None) -> None:
        self.registry = registry
        self.host = host
        self.gate = gate
        self.tls: ssl.SSLContext | None = None
        self.seen: list[Seen] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, kind: str, method: str, path: str = "", **options: object) -> Fault:
        """Plan a fault and return it; ``fault.hit`` counts how often it struck."""
        fault = Fault(kind, method, path, **options)  # type: ignore[arg-type]
        self._faults.append(fault)
        return fault

    def take(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        """Return the fault for a request."""
        with self._lock:
            for fault in self._faults:
                if fault.hit < fault.times and fault.method == method and re.search(fault.path, path):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.hit += 1
                    return fault
        return None

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the registry."""
        if self.tls is not None:
            return http.client.HTTPSConnection(self.registry, timeout=30, context=self.tls)
        return http.client.HTTPConnection(self.registry, timeout=30)

    def count(self, method: str, path: str = "") -> int:
        """Return how many requests came."""
        return sum(1 for seen in self.seen if seen.method == method and re.search(path, seen.path))


class _Reset(Exception):
    """Close the connection so that the client gets a reset."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.proxy.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, length))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        fault = self.proxy.take(self.command, f"{self.path}#{operation}" if operation else self.path, self.headers)
        try:
            self._forward(fault, length)
        except (_Reset, OSError, http.client.HTTPException):
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.wfile = Path(os.devnull).open("wb")  # noqa: SIM115 - the handler flushes it when it ends

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

    def _forward(self, fault: Fault | None, length: int) -> None:
        kind = fault.kind if fault else ""
        if kind == "reset":
            raise _Reset
        if fault is not None and kind == "status":
            self._read(length)
            self._answer(fault.status, fault.headers, fault.body)
            return
        if kind == "hang":
            self._read(length)
            self._wait_for_hanging_up()
            raise _Reset
        status, headers, body = self._decided(fault, length) or self._asked(fault, length)
        if kind == "lose_answer":
            raise _Reset
        if fault is not None and kind == "fail_after":
            self._answer(fault.status, fault.headers)
            return
        self._return(status, headers, body, fault)
        if fault is not None and fault.on_answered is not None:
            self.wfile.flush()
            fault.on_answered()

    def _decided(self, fault: Fault | None, length: int) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Return the answer of what stands before the registry, if it has one."""
        decided = self.proxy.gate(self.command, self.path, self.headers) if self.proxy.gate is not None else None
        if decided is None:
            return None
        self._read(length)
        if fault is not None and fault.on_sent is not None:
            fault.on_sent()
        status, headers, body = decided
        return status, [*headers.items(), ("Content-Length", str(len(body)))], body

    def _asked(self, fault: Fault | None, length: int) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return the answer of the registry."""
        upstream = self.proxy.connect()
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    upstream.putheader(name, value)
            upstream.endheaders()
            self._send_body(upstream, fault.kind if fault else "", length)
            if fault is not None and fault.on_sent is not None:
                fault.on_sent()
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _wait_for_hanging_up(self) -> None:
        self.connection.settimeout(_LONGEST_WAIT)
        while self.connection.recv(_CHUNK):
            pass

    def _read(self, length: int) -> bytes:
        return self.rfile.read(length) if length else b""

    def _send_body(self, upstream: http.client.HTTPConnection, kind: str, length: int) -> None:
        sent = 0
        while sent < length:
            chunk = bytearray(self.rfile.read(min(_CHUNK, length - sent)))
            if not chunk:
                raise _Reset  # the client is gone
            if kind == "damage_request" and sent == 0:
                chunk[len(chunk) // 2] ^= 0xFF
            if kind == "cut_request" and sent + len(chunk) > length // 2:
                upstream.send(bytes(chunk[: max(0, length // 2 - sent)]))
                upstream.close()
                raise _Reset
            upstream.send(bytes(chunk))
            sent += len(chunk)

    def _return(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        self.send_response(fault.status if fault is not None and kind == "as" else status)
        replaced = {name.lower(): value for name, value in fault.headers.items()} if fault and kind == "header" else {}
        in_pieces = False
        for name, value in headers:
            in_pieces |= name.lower() == "transfer-encoding"
            if name.lower() not in ("transfer-encoding", "connection", *replaced):
                self.send_header(name, value)
        for name, value in replaced.items():
            self.send_header(name, value)
        if in_pieces:  # what came in pieces goes on as one
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            body = b""
        if kind == "damage_answer" and body:
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        if kind == "cut_answer":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            raise _Reset
        if kind == "slow":
            for start in range(0, len(body), max(1, len(body) // 8)):
                self.wfile.write(body[start : start + max(1, len(body) // 8)])
                self.wfile.flush()
                time.sleep(0.02)
            return
        self.wfile.write(body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, as those do which are killed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def faulty_proxy(
    registry: str,
    gate: Gate | None = None,
    kind: Callable[..., FaultyProxy] = FaultyProxy,
    *,
    tls: Tls | None = None,
) -> Iterator[FaultyProxy]:
    """Run a proxy in front of a registry (``host:port``).

    :param kind: makes the proxy of registry, host and gate.
    :param tls: of the proxy, which is at the registry's address, and of the registry.
    """
    handler = type("Handler", (_Handler,), {})
    address = registry.partition(":")[0] if tls else "127.0.0.1"
    server = _Server((address, 0), handler)
    proxy = kind(registry, f"{address}:{server.server_address[1]}", gate)
    if tls is not None:
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(tls.certificate, tls.key)
        server.socket = serving.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        proxy.tls = ssl.create_default_context(cafile=str(tls.authority))
    handler.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
