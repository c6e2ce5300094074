"""What may reach the page: those who hold its address, from the page itself, by the routes it uses.

Gradio serves much more than this page asks for: links to a visitor's state, files, a proxy, a
description of itself. Whatever is not listed here is refused before Gradio sees it.
"""

import hashlib
import ipaddress
import json
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from vclip_jax.demo import uploads
from vclip_jax.demo.answers import MOST_MEGABYTES

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"
ROUTES = {
    "GET": re.compile(
        r"/|/theme\.css|/favicon\.ico|/(assets|static)/[\w./-]+"
        r"|/gradio_api/(heartbeat/\w+|queue/data|upload_progress)",
        re.ASCII,
    ),
    "POST": re.compile(f"{JOIN}|{UPLOAD}"),
}
"""What the page was seen to ask for in a browser (Gradio 6.31)."""
MOST_BYTES = {JOIN: 2**18, UPLOAD: MOST_MEGABYTES * 2**20 + 2**16}
"""Of a request's body: words that are typed, escaped; a file and what is around it."""
WAITING_FILES = 32
"""Uploads that have not been read yet; with more, the next is asked to come back."""
HEADERS = {
    # Gradio's pages have inline scripts; what counts is that browsers ask no other machine.
    "Content-Security-Policy": (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
UNTRUSTED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")
"""Headers from which Gradio takes its own address: there is no proxy before this page."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request that is not for the page: the status code and a line that says why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status

    def answer(self, path: str) -> Response:
        """What is sent: Gradio's client shows the `detail` of a refused question."""
        if path == JOIN:
            return JSONResponse({"detail": str(self)}, self.status)
        return PlainTextResponse(f"{self}\n", self.status)


@dataclass(frozen=True)
class Gate:
    """An ASGI application that passes on to another what is meant for the page.

    Attributes:
        application: Gradio's.
        hosts: the host names, in lower case, that the page answers to, besides addresses in
            numbers. Any other could be that of a website that a visitor has open, which leads its
            own name here (DNS rebinding).
        token: what a visitor's first address must hold; None lets everybody in.
        folder: where uploads lie.
    """

    application: Application
    hosts: frozenset[str]
    token: str | None
    folder: Path

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            send = _with_headers(send)
            try:
                answer = self._answer(Request(scope))
                if answer is None:
                    scope, receive = await self._checked(scope, receive)
            except Refused as refused:
                answer = refused.answer(scope["path"])
            except ClientDisconnect:
                return
            await (answer or self.application)(scope, receive, send)

    def _answer(self, request: Request) -> Response | None:
        """The answer to a first request with the token; None for what may be passed on."""
        headers, path = request.headers, request.scope["path"]
        if not _is_host(headers.getlist("host"), self.hosts):
            raise Refused(400, "the page does not answer to this name: open the printed address")
        if not _from_the_page(headers):
            raise Refused(403, "another website sent this: paste the page's address by hand")
        if self.token is not None:
            given = request.query_params.get("token", "")
            if (request.method, path) == ("GET", "/") and _same(given, self.token):
                return self._welcome(self.token)
            if not _same(request.cookies.get(_cookie(self.token), ""), self.token):
                raise Refused(403, "open the address that the demo printed, with its token")
        route = ROUTES.get(request.method)
        if route is None or not route.fullmatch(path) or ".." in path:
            raise Refused(404, "the page has nothing of this name")
        return None

    @staticmethod
    def _welcome(token: str) -> Response:
        """To the page itself, so that the token stays neither in the address bar nor in links."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_cookie(token), token, httponly=True, samesite="strict")
        return answer

    async def _checked(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """The request without what Gradio is not to see."""
        headers = MutableHeaders(raw=[h for h in scope["headers"] if h[0] not in UNTRUSTED])
        path = scope["path"]
        scope = {**scope, "headers": headers.raw}
        if path == "/":
            scope["query_string"] = b""  # for it could name a state to begin with
        if scope["method"] != "POST":
            return scope, receive
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not re.fullmatch("[0-9]{1,12}", length):
            raise Refused(411, "the request has no Content-Length")
        if int(length) > MOST_BYTES[path]:
            raise Refused(413, f"the request has more than the {MOST_BYTES[path]} bytes allowed")
        if path == UPLOAD:
            if uploads.count(self.folder) >= WAITING_FILES:
                raise Refused(503, "too many uploads at once: try again in a minute")
            return scope, receive
        body = question(await Request(scope, receive).body(), self.folder)
        headers["content-length"] = str(len(body))
        return {**scope, "headers": headers.raw}, _body_first(body, receive)


def question(body: bytes, folder: Path) -> bytes:
    """What a visitor asks, anew from the values that the page sends and nothing else.

    Args:
        body: JSON as Gradio's client sends it to `JOIN`.
        folder: where uploads lie.

    Raises:
        Refused: it holds something else, such as the path of a file that was not uploaded.
    """
    try:
        asked = json.loads(body)
        kept = {
            "data": [_value(value, folder) for value in asked["data"]],
            "fn_index": _whole(asked["fn_index"]),
            "session_hash": re.fullmatch("[0-9a-zA-Z]{1,64}", asked["session_hash"])[0],  # type: ignore[index]
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(
            400, "the page does not send this, or the upload is gone: drop the photograph again"
        ) from None
    return json.dumps(kept).encode()


def _value(value: Any, folder: Path) -> Any:
    """Words, numbers, nothing, or an upload; of the last, no more than where it lies."""
    if value is None or isinstance(value, str | int | float):
        return value
    path = uploads.inside(folder, value["path"])
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _is_host(given: list[str], names: frozenset[str]) -> bool:
    if len(given) != 1:
        return False
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z._-]+))(?::[0-9]*)?", given[0].lower())
    if found is None:
        return False
    name = found[1] or found[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def _from_the_page(headers: Headers) -> bool:
    """Whether a browser says that the page itself asks, or a person; other programs say nothing."""
    try:
        origins = {urlsplit(origin).netloc.lower() for origin in headers.getlist("origin")}
    except ValueError:
        return False
    sites = set(headers.getlist("sec-fetch-site"))
    return origins <= {headers["host"].lower()} and sites <= {"same-origin", "none"}


def _cookie(token: str) -> str:
    # Browsers do not keep the cookies of two ports apart.
    return f"vclip-demo-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            headers.update(HEADERS)
            message = {**message, "headers": headers.raw}
        await send(message)

    return sent


def _body_first(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def received() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return received
