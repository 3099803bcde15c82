"""The Study tab: the study's report in a sandboxed frame without access to the app or the network."""

import re
from html import escape
from pathlib import Path

import gradio as gr

# The report contains its styles, scripts and figures, so the policy can forbid every other source.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:"
# The base keeps links within the report in the frame. Without it they would open the app's address.
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><base href="about:srcdoc">'


def build_study_tab(tab: gr.Tab, report: str | None) -> None:
    """Lay out the tab. Opening it reads the report, so a new report needs no restart."""
    frame = gr.HTML(elem_id="report")
    tab.select(lambda: report_frame(report), None, frame, queue=False, show_progress="hidden", api_visibility="private")


def report_frame(report: str | None) -> str:
    """The report in a sandboxed iframe. Its scripts may run, to sort tables, but without origin or network."""
    if report is None or not Path(report).is_file():
        return '<p class="hint">There is no report yet. Run <code>make study</code> to write it.</p>'
    page = Path(report).read_text(encoding="utf-8")
    page, found = re.subn(r"<head(\s[^>]*)?>", lambda head: head[0] + HEAD, page, count=1)
    if not found:
        page = HEAD + page
    return (
        f'<iframe class="report" title="The study’s report" sandbox="allow-scripts" srcdoc="{escape(page)}"></iframe>'
    )
