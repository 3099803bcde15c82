"""HTTP protection of the app: allowed paths, a limit on request bodies, and security headers."""

import json
import re
from typing import Any

# A hundred times the longest valid form, so that an overlong text still reaches the check that explains it.
MAX_BODY_BYTES = 2**20
# This machine's own host names, as written in URLs.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# The paths of Gradio's server that the page needs. Its others (uploads, files, saved states, a proxy) stay closed.
OPEN_PATHS = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/[^?]*|/login/?|/logout"
    r"|/gradio_api/(theme\.css|app_id/?|startup-events|login_check/?|user/?|token/?|info/?|cancel|reset/?|queue/join"
    r"|queue/data|heartbeat/[^/]+|(call|run|api)/[a-z_]+(/[^/]+)?)"
)
# Gradio's page has inline scripts and compiles templates from text, so 'unsafe-inline' and 'unsafe-eval' are needed.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'self' about:; form-action 'self'; frame-ancestors {ancestors}"
)


# A name or an address, and a port: what a Host header may hold.
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")


class SecurityMiddleware:
    """ASGI middleware.

    `ancestors`: value of the policy's frame-ancestors, the pages that may frame the app. `proxies`:
    whether a proxy's X-Forwarded-Host names the app's public address.
    """

    def __init__(self, app: Any, *, ancestors: str = "'self'", proxies: bool = False) -> None:
        self.app, self._proxies = app, proxies
        self._headers = [
            (b"content-security-policy", POLICY.format(ancestors=ancestors).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Refuse unknown paths and long requests; pass the rest on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not OPEN_PATHS.fullmatch(scope["path"].removeprefix(scope.get("root_path", ""))):
            await refuse(send, 404, "Not found.")
        elif _content_length(scope) > MAX_BODY_BYTES:
            await refuse(send, 413, f"This request is too long (limit: {MAX_BODY_BYTES // 2**20} MiB).")
        elif not all(HOST.fullmatch(value.decode("latin-1")) for name, value in scope["headers"] if name == b"host"):
            await refuse(send, 400, "Invalid host.")
        else:
            scope = scope | {"headers": [header for header in scope["headers"] if self._accepts(*header)]}
            await self.app(scope, _limited(receive), self._with_headers(send))

    def _accepts(self, name: bytes, value: bytes) -> bool:
        # Gradio writes these hosts into its page as the address of the app, unchecked.
        if name == b"x-gradio-server":
            return False
        if name != b"x-forwarded-host":
            return True
        hosts = value.decode("latin-1").split(",")
        return self._proxies and all(HOST.fullmatch(host.strip()) for host in hosts)

    def _with_headers(self, send: Any) -> Any:
        async def sending(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *self._headers]}
            await send(message)

        return sending


def _content_length(scope: dict) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def _limited(receive: Any) -> Any:
    """`receive` that disconnects once the body exceeds the limit: its content-length may be missing or wrong."""
    seen = 0

    async def receiving() -> dict:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receiving


async def refuse(send: Any, status: int, sentence: str) -> None:
    """Answer with a sentence in the JSON format in which Gradio's page and client expect errors."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"detail": sentence}).encode()})
