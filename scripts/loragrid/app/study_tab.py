"""The Study tab: the study's report in a frame of its own, which can reach neither the app nor anything outside."""

import re
from html import escape
from pathlib import Path

import gradio as gr

# The report brings its styles, scripts and figures along; it needs nothing from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
# Links within the page must stay in the frame: without this they would lead to the app's own address.
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><base href="about:srcdoc">'


def build_study_tab(tab: gr.Tab, report: str | None) -> None:
    """Lay the tab out; the report is read when the tab is opened, so that one made anew is seen."""
    frame = gr.HTML(elem_id="report")
    tab.select(lambda: report_frame(report), None, frame, queue=False, show_progress="hidden", api_visibility="private")


def report_frame(report: str | None) -> str:
    """The report's page in a sandboxed frame: scripts may run (they sort its tables), with no origin and no network."""
    if report is None or not Path(report).is_file():
        return '<p class="hint">There is no report yet: <code>make study</code> makes it.</p>'
    page = Path(report).read_text(encoding="utf-8")
    page, found = re.subn(r"<head(\s[^>]*)?>", lambda head: head[0] + HEAD, page, count=1)
    if not found:
        page = HEAD + page
    return (
        f'<iframe class="report" title="The study’s report" sandbox="allow-scripts" srcdoc="{escape(page)}"></iframe>'
    )
