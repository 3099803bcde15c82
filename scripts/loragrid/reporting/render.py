"""Pages from templates.

Everything in them is escaped, except the project's own SVG, style sheet and script.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from loragrid.formatting import visible
from loragrid.reporting.answers.word_marks import is_tall
from loragrid.reporting.figures.study_figures import safe_id
from loragrid.reporting.figures.svg import PageFigures

TEMPLATES = Path(__file__).parent / "templates"
STYLE_SHEETS = ("report.css", "first_screen.css")
LONGEST_WHOLE_NAME = 24  # characters; a longer name must be able to break on a phone


def render(template: str, sections: dict[str, Any], figures: PageFigures) -> str:
    """The page as text.

    `sections`: the template's values; "names" among them lists names that stay on one line.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_show,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = sections["names"]
    environment.filters["code"] = mark_code
    environment.filters["breakable"] = breakable
    environment.filters["is_tall"] = is_tall
    environment.filters["prose"] = lambda text: keep_whole(text, names)
    css = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLE_SHEETS)
    css += f"\n{figures.styles.css()}\n"
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        **sections,
        figures={name: Markup(svg) for name, svg in figures.svgs.items()},
        css=Markup(css),
        script=Markup(script),
        policy=content_security_policy(css, script),
        safe_id=safe_id,
    )


def _show(value: Any) -> Any:
    """A value as the page prints it, with characters that hide or reorder text as their codes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def keep_whole(text: str, names: Iterable[str]) -> Markup:
    """A sentence as HTML in which the given names never break at their hyphens.

    The text itself stays as it is.
    """
    page_text = escape(visible(text))
    breakable = {name for name in names if "-" in name and len(name) <= LONGEST_WHOLE_NAME}
    if not breakable:
        return page_text
    choices = "|".join(re.escape(str(escape(name))) for name in sorted(breakable))
    # Whole names only: llama-3 is not part of llama-3-8b.
    whole_name = rf"(?<![\w-])({choices})(?![\w-])"
    return Markup(re.sub(whole_name, r'<span class="name">\1</span>', str(page_text)))


def mark_code(text: str) -> Markup:
    """A text as HTML in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def breakable(text: str) -> Markup:
    """A path or a name as HTML whose lines break after its underscores and slashes, not within its words."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(visible(text)))))


def content_security_policy(css: str, script: str) -> str:
    """A policy that allows this style sheet and this script by their hashes, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_source_hash(css)}'; "
        f"script-src '{_source_hash(script)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
