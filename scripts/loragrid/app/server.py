"""The app as a whole: its three tabs, its looks, and how it is served."""

import os
from dataclasses import dataclass
from pathlib import Path

# Gradio reads it when it is imported: nothing is reported to anyone.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from loragrid.app.answering import Answerer
from loragrid.app.compare_tab import CompareTab
from loragrid.app.request_handling import CancelEvents
from loragrid.app.running_plan_tab import RunningPlanTab
from loragrid.app.security_middleware import LOOPBACK, SecurityMiddleware
from loragrid.app.study_tab import build_study_tab
from loragrid.errors import UserError

# Requests that may wait for the model; who comes later is told that the queue is full.
MAX_WAITING = 64
STYLE = Path(__file__).with_name("style.css")
# Where the Hub shows an app within its own page.
HUB_PAGES = "'self' https://huggingface.co https://*.huggingface.co"


@dataclass(frozen=True)
class ServerOptions:
    """How the app is served: on `host`:`port` (None: the first free from 7860 on), through a public link if `share`, to the
    users of `login` ((name, password) pairs; () for everybody), and within the Hub's page if `on_hub`."""

    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    login: tuple[tuple[str, str], ...] = ()
    on_hub: bool = False


def build(answerer: Answerer) -> gr.Blocks:
    """The page with its events."""
    cancel_events = CancelEvents()
    catalogue = answerer.catalogue
    with gr.Blocks(title="loragrid", analytics_enabled=False, fill_width=True) as page:
        gr.HTML("<h1>loragrid</h1>", elem_id="title")
        with gr.Tab("Plan"):
            RunningPlanTab(answerer, cancel_events).build()
        with gr.Tab("Compare"):
            CompareTab(answerer, cancel_events).build()
        with gr.Tab("Study") as study_tab:
            build_study_tab(study_tab, catalogue.report)

        def leave(request: gr.Request) -> None:
            cancel_events.event(request.session_hash).set()

        page.unload(leave)
    # Without a way past the queue: `api_open` would answer a request at once, whoever waits.
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=4, api_open=False)


def serve(page: gr.Blocks, serving: ServerOptions) -> str:
    """Start serving, in threads of its own, and return the local address."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    public = serving.share or serving.on_hub or serving.host not in LOOPBACK
    hosts = ["*"] if public else list(LOOPBACK)
    guard = Middleware(SecurityMiddleware, ancestors=HUB_PAGES if serving.on_hub else "'self'")
    try:
        _, address, _ = page.launch(
            server_name=serving.host,
            server_port=serving.port,
            share=serving.share,
            auth=list(serving.login) or None,
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
            app_kwargs={"middleware": [guard, Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]},
            _frontend=False,  # else Gradio asks itself for the page and gives up after 3 s, too few on a busy machine
        )
    except OSError as error:
        raise UserError(f"the app cannot listen on {serving.host}:{serving.port or '7860-7959'} ({error})") from None
    return address


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the machine's own fonts: nothing is fetched from elsewhere."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    mono = ["ui-monospace", "Menlo", "Consolas", "Noto Sans Mono", "monospace"]
    base = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=sans, font_mono=mono, radius_size="sm")
    # Gradio's own subdued grey, and white on its own teal, are too pale to be read by everybody (contrast under 4.5).
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
