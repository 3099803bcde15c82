"""What the app's server lets in and out: its own pages and events, short requests, nothing from elsewhere."""

import json
import re
from typing import Any

# A request's body, bytes: a hundred times the longest right form, so that who pastes a book is told so beside the field.
MAX_BODY_BYTES = 2**20
# This machine's own names, as they stand in addresses.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# All that the page needs of Gradio's server. What else it offers (uploads, files, saved states, a proxy) stays shut.
OPEN_PATHS = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/[^?]*|/login/?|/logout"
    r"|/gradio_api/(theme\.css|app_id/?|startup-events|login_check/?|user/?|token/?|info/?|cancel|reset/?|queue/join"
    r"|queue/data|heartbeat/[^/]+|(call|run|api)/[a-z_]+(/[^/]+)?)"
)
# Gradio's page has inline scripts and builds templates from text, so those two stay allowed.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'self' about:; form-action 'self'; frame-ancestors {ancestors}"
)


class SecurityMiddleware:
    """ASGI middleware. `ancestors`: pages that may show the app in a frame, in the policy's terms."""

    def __init__(self, app: Any, *, ancestors: str = "'self'") -> None:
        self.app = app
        self._headers = [
            (b"content-security-policy", POLICY.format(ancestors=ancestors).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not OPEN_PATHS.fullmatch(scope["path"].removeprefix(scope.get("root_path", ""))):
            await _refuse(send, 404, "Not found.")
        elif _stated_length(scope) > MAX_BODY_BYTES:
            await _refuse(send, 413, f"This is too long: {MAX_BODY_BYTES // 2**20} MiB of text are the most.")
        else:
            await self.app(scope, _counted(receive), self._with_headers(send))

    def _with_headers(self, send: Any) -> Any:
        async def sending(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *self._headers]}
            await send(message)

        return sending


def _stated_length(scope: dict) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


def _counted(receive: Any) -> Any:
    """`receive` that hangs up on a body which turns out longer than it may be, whatever its header said."""
    seen = 0

    async def receiving() -> dict:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > MAX_BODY_BYTES else message

    return receiving


async def _refuse(send: Any, status: int, sentence: str) -> None:
    """Answer with a sentence in the form in which Gradio's page and client read errors."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"detail": sentence}).encode()})
