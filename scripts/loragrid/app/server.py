"""The app's page with its three tabs, its theme, and its server."""

import asyncio
import os
import re
import signal
from dataclasses import dataclass
from html import escape
from pathlib import Path
from queue import SimpleQueue
from typing import Any

# Gradio reads this variable on import. The app must send no usage data.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from loragrid.app.answering import Answerer
from loragrid.app.catalogue import Catalogue
from loragrid.app.compare_tab import CompareTab
from loragrid.app.login_delays import LoginDelays
from loragrid.app.request_handling import CancelEvents
from loragrid.app.running_plan_tab import RunningPlanTab
from loragrid.app.security_middleware import LOOPBACK, SecurityMiddleware
from loragrid.errors import UserError, print_line
from loragrid.runtime.progress_lines import working
from loragrid.runtime.quiet_libraries import quiet_bitsandbytes

# Requests that may wait for the model. Further ones get the message that the queue is full.
MAX_WAITING = 64
STYLE = Path(__file__).with_name("style.css")
# The Hub shows a Space in a frame of its own pages.
HUB_PAGES = "'self' https://huggingface.co https://*.huggingface.co"
# The report contains its styles, scripts and figures, so the policy can forbid every other source.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
)
# The base keeps links within the report in the frame. Without it they would open the app's address.
REPORT_HEAD = f'<meta http-equiv="Content-Security-Policy" content="{REPORT_POLICY}"><base href="about:srcdoc">'


@dataclass(frozen=True)
class ServerOptions:
    """How to serve the app.

    `host`, `port`: address to listen on (None: the first free port from 7860). `share`: also open a public link.
    `login`: (name, password) pairs of the users, () for no login. `on_hub`: allow the Hub's pages to frame the app.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    login: tuple[tuple[str, str], ...] = ()
    on_hub: bool = False


def build(answerer: Answerer) -> gr.Blocks:
    """The app's page with all event handlers."""
    cancel_events = CancelEvents()
    catalogue = answerer.catalogue
    with gr.Blocks(title="loragrid", analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>loragrid</h1>", elem_id="title")
        # The first tab is open: the form of running plans only where the study is about them.
        tabs = [("Plan", RunningPlanTab), ("Compare", CompareTab)]
        for name, tab in tabs if catalogue.plans else tabs[::-1]:
            with gr.Tab(name):
                tab(answerer, cancel_events).build()
        with gr.Tab("Study") as study_tab:
            build_study_tab(study_tab, catalogue.report)

        def leave(request: gr.Request) -> None:
            cancel_events.event(request.session_hash).set()

        page.unload(leave)
    # With `api_open`, requests to the API would skip the queue.
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=4, api_open=False)
    join_one_at_a_time(page)
    return page


def join_one_at_a_time(page: gr.Blocks) -> None:
    """Let requests join the page's queue one after another, so that its limit holds for simultaneous ones too."""
    # Gradio compares the length with the limit first, then validates, and only then adds the request.
    lock, join = asyncio.Lock(), page._queue.push

    async def push(*arguments: Any, **options: Any) -> Any:
        async with lock:
            return await join(*arguments, **options)

    page._queue.push = push


def build_study_tab(tab: gr.Tab, report: str | None) -> None:
    """Lay out the Study tab. Opening it reads the report, so a new report needs no restart."""
    frame = gr.HTML(elem_id="report")
    tab.select(lambda: report_frame(report), None, frame, queue=False, show_progress="hidden", api_visibility="private")


def report_frame(report: str | None) -> str:
    """The report in a sandboxed iframe. Its scripts may run, to sort tables, but without origin or network."""
    if report is None or not Path(report).is_file():
        return '<p class="hint">There is no report yet. Run the study to write it.</p>'
    page = Path(report).read_text(encoding="utf-8")
    page, found = re.subn(r"<head(\s[^>]*)?>", lambda head: head[0] + REPORT_HEAD, page, count=1)
    if not found:
        page = REPORT_HEAD + page
    return (
        f'<iframe class="report" title="The study’s report" sandbox="allow-scripts" srcdoc="{escape(page)}"></iframe>'
    )


def serve_until_stopped(catalogue: Catalogue, options: ServerOptions) -> None:
    """Load the starting model, serve the app, and block until Ctrl-C or SIGTERM."""
    quiet_bitsandbytes()
    answerer = Answerer(catalogue)
    start = catalogue.subject(catalogue.start)
    print_line(f"app: loading {start.label}")
    with working(f"app: loading {start.label}"):
        answerer.load(start)
    page = build(answerer)
    # Registered before the app is served, because whoever can open the app may already stop it.
    signals = stop_signals()
    address = serve(page, options)
    print_line(f"app: open {address} (press Ctrl-C to stop)")
    signals.get()
    print_line("app: stopped")


def stop_signals() -> SimpleQueue:
    """A queue that receives the number of each SIGINT (Ctrl-C) or SIGTERM (sent by machines and service managers)."""
    # No Event: a handler that interrupts the main thread while it holds the Event's lock would wait for ever.
    received: SimpleQueue = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.put(number))
    return received


def serve(page: gr.Blocks, options: ServerOptions) -> str:
    """Start serving in background threads; the local address. Raises `UserError` if the port is taken."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # On this machine only, refuse other host names: a page elsewhere could otherwise reach the app by DNS rebinding.
    public = options.share or options.on_hub or options.host not in LOOPBACK
    hosts = ["*"] if public else list(LOOPBACK)
    guard = Middleware(SecurityMiddleware, ancestors=HUB_PAGES if options.on_hub else "'self'", proxies=public)
    delays = [Middleware(LoginDelays)] if options.login else []
    try:
        _, address, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=list(options.login) or None,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            strict_cors=True,
            max_file_size=1,
            theme=theme(),
            css=STYLE.read_text(encoding="utf-8"),
            app_kwargs={"middleware": [guard, Middleware(TrustedHostMiddleware, allowed_hosts=hosts), *delays]},
            # Otherwise Gradio requests its own page and gives up after 3 s, which is too short on a busy machine.
            _frontend=False,
        )
    except OSError as error:
        port = options.port or "7860-7959"
        raise UserError(
            f"{options.host}:{port}: the app cannot listen there ({error}). Fix: give another --host or --port."
        ) from None
    return address


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the machine's own fonts, so that the page loads nothing from other servers."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    mono = ["ui-monospace", "Menlo", "Consolas", "Noto Sans Mono", "monospace"]
    base = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=sans, font_mono=mono, radius_size="sm")
    # Gradio's subdued grey, and white on its teal, have a contrast below 4.5, the minimum of WCAG AA.
    return base.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )
