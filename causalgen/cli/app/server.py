"""The server of the page: to this machine alone, asked by its own page alone, and without a network.

    bound to 127.0.0.1       nobody else reaches it
    Host, Origin             another page that is open in the browser is refused: its requests carry another
                             Origin, and a name that was turned to 127.0.0.1 (DNS rebinding) another Host
    size                     a body beyond what may be uploaded is refused, as soon as it is
    Content-Security-Policy  the browser asks nobody else, whatever the page holds
    environment              gradio sends no analytics, huggingface_hub asks for nothing

What is uploaded and offered for download lies in a temporary folder, which goes when the server ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from causalgen.cli.common import use_threads
from graphs.errors import CausalgenError, MechanismError

__all__ = ["PageGuard", "make_app", "offline", "open_socket", "run_app"]

_HOST = "127.0.0.1"
_MOST_BYTES = 64 * 2**20
"""Of an upload, and of a request with what surrounds it."""

_MOST_SESSIONS = 256
"""Pages whose worlds are kept; the one that was idle longest begins anew."""

_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def run_app(
    model: str,
    data: str | None,
    port: int,
    *,
    browse: bool,
    device: str | None,
    threads: int | None,
    rename: Sequence[str] = (),
) -> None:
    """Serve the page until interrupted."""
    if find_spec("gradio") is None:
        raise MechanismError("The page needs gradio: in the checkout, pip install '.[app]'.")
    with open_socket(port) as bound, TemporaryDirectory(prefix="causalgen-app-") as folder:
        offline(Path(folder))
        from causalgen.cli.app.questions import open_model

        use_threads(threads)
        opened = open_model(model, data, device, rename)
        app = make_app(opened, bound.getsockname()[1], Path(folder))
        url = f"http://{_HOST}:{bound.getsockname()[1]}"
        import uvicorn

        typer.echo(f"{url}  (Ctrl-C ends it)")  # which flushes, for those who read it by a pipe
        if browse:
            import webbrowser

            webbrowser.open(url)
        # A page that is open keeps a connection open: the end does not wait for it, nor tell that it was cut.
        options: dict[str, Any] = {"log_level": "critical", "lifespan": "on", "ws": "none"}
        config = uvicorn.Config(app, timeout_graceful_shutdown=1, **options)
        uvicorn.Server(config).run(sockets=[bound])


def make_app(model: Any, port: int, folder: Path) -> Any:
    """The page as an ASGI application that answers to its own port alone."""
    offline(folder)
    import gradio as gr
    from fastapi import FastAPI

    from causalgen.cli.app.layout import STYLE, build_page, theme

    page = build_page(model, folder)
    page.queue(default_concurrency_limit=4)
    page.state_session_capacity = _MOST_SESSIONS
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=_HOST,
        server_port=port,
        footer_links=[],
        max_file_size=_MOST_BYTES,
        ssr_mode=False,
        mcp_server=False,
        theme=theme(),
        css=STYLE,
    )
    return PageGuard(app, port)


def offline(folder: Path) -> None:
    """Settings that gradio and huggingface_hub read when they are imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def open_socket(port: int) -> socket.socket:
    """A socket on the loopback interface; port 0 is a free one."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # a port that has just been left; elsewhere it would take one in use
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((_HOST, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise CausalgenError(
            f"Port {port} of {_HOST} cannot be taken: {error.strerror or error}. Give another one by --port, "
            "or --port 0 for any that is free."
        ) from error
    return bound


class PageGuard:
    """Refuses requests of another page, under another name, or too large; the browser asks nobody else."""

    def __init__(self, app: Any, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (_HOST, "localhost")}
        if port == 80:
            self._hosts |= {_HOST, "localhost"}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        hosts = [value for name, value in headers if name == "host"]
        origins = [value for name, value in headers if name == "origin"]
        foreign = [value for value in origins if value not in self._origins]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            await _refuse(
                send, 403, f"This page answers to {', '.join(sorted(self._hosts))}, not to {hosts}."
            )
        elif foreign:
            await _refuse(send, 403, f"This page answers to itself alone, not to {', '.join(foreign)}.")
        else:
            body = _Body(receive, _with_policy(send))
            await self._app(scope, body.receive, body.send)


class _Body:
    """What a request brings, up to its limit, by what arrives rather than by what its header declares.

    Beyond the limit it is answered at once, and to the application the browser has gone.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._bytes, self._answered, self._refused = 0, False, False

    async def receive(self) -> MutableMapping[str, Any]:
        if self._refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > _MOST_BYTES:
            self._refused = True
            if not self._answered:
                await _refuse(self._send, 413, f"At most {_MOST_BYTES // 2**20} MB can be sent at once.")
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self._answered = True
        if not self._refused:
            await self._send(message)


def _with_policy(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
            message["headers"] = [*message.get("headers", ()), *own]
        await send(message)

    return sent


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 413:  # what is left of the body is read by nobody
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
