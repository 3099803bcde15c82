"""Figures as files and as elements of the page, with the same bytes each time.

In the page an SVG is inline: its colours are CSS variables and its styles are classes, so the page
needs no inline style and its content-security policy can forbid them. Beside the page the figure is
saved as SVG and PNG in its light colours.
"""

import io
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from loragrid.reporting.figures.style import COLOURS
from loragrid.runtime.atomic_files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class StyleClasses:
    """The inline styles of all SVGs of a page as classes of the page's one style sheet."""

    classes: dict[str, str] = field(default_factory=dict)

    def class_of(self, style: str) -> str:
        """The class for the text of a style attribute."""
        return self.classes.setdefault(style, f"g{len(self.classes)}")

    def css(self) -> str:
        """The rules of all classes."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self.classes.items())


class PageFigures:
    """Figures of one page, saved in `folder`. `svgs`: name → SVG element for the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.styles = StyleClasses()
        self.svgs: dict[str, str] = {}

    def add(self, name: str, figure: "Figure", description: str) -> None:
        """Save a figure under `name` and keep its SVG, described for screen readers, for the page."""
        document = save(figure, self.folder, name)
        self.svgs[name] = inline_svg(document, name=name, description=description, styles=self.styles)


def svg_document(figure: "Figure") -> str:
    """The figure as an SVG document without date and creator, which would change its bytes."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    return buffer.getvalue()


def save(figure: "Figure", folder: Path, name: str) -> str:
    """Write {name}.svg and {name}.png into a folder and return the SVG document."""
    document = svg_document(figure)
    write_bytes(folder / f"{name}.svg", document.encode())
    # The layout is found already; finding it again takes as long as drawing.
    figure.set_layout_engine("none")
    # White behind the PNG, which goes into documents; the SVG stays transparent for dark pages.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    write_bytes(folder / f"{name}.png", buffer.getvalue())
    return document


def inline_svg(document: str, *, name: str, description: str, styles: StyleClasses) -> str:
    """An SVG document as an element of the page.

    `name` makes its ids unique; `styles` collects its styles as classes.
    """
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # matplotlib's style sheet sets how lines join, which report.css does for all figures at once.
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    # Tag by tag: text between tags may come from anywhere and must not be mistaken for an
    # attribute.
    svg = re.sub(r"<[^<>]+>", lambda found: _page_tag(found[0], name, styles), svg)
    svg = _without_idle_parts(svg)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    label = f'role="img" aria-labelledby="{name}-title"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} {label}>'
    title = f'<title id="{name}-title">{escape(description)}</title>'
    return head + title + svg[svg.index(">") + 1 :].strip()


def _page_tag(tag: str, name: str, styles: StyleClasses) -> str:
    tag = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', tag)
    style = re.search(r'\bstyle="([^"]*)"', tag)
    if style is None:
        return tag
    return tag.replace(style[0], f'class="{styles.class_of(_page_style(style[1]))}"')


def _without_idle_parts(svg: str) -> str:
    """The drawing without ids that nothing refers to, groups that then hold no attribute, and space between tags.

    They are a third of matplotlib's elements, and a browser needs time for each when it opens a page of many figures.
    """
    used = {*re.findall(r'(?:href="#|url\(#)([^")]+)', svg)}
    kept: list[bool] = []  # of the groups that are open here

    def trimmed(found: re.Match[str]) -> str:
        tag = re.sub(r'\s+id="([^"]*)"', lambda own: own[0] if own[1] in used else "", found[0])
        if tag == "</g>":
            return tag if kept.pop() else ""
        if re.match(r"<g\b", tag) and not tag.endswith("/>"):
            kept.append(tag != "<g>")
            return tag if kept[-1] else ""
        return tag

    return re.sub(r">\s+<", "><", re.sub(r"<[^<>]+>", trimmed, svg))


def _page_style(style: str) -> str:
    """A style with the page's colours and font."""
    # The page's own font, so that figures read like the text around them.
    style = re.sub(r"font-family:[^;]*;?", "", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    return "; ".join(part.strip() for part in style.split(";") if part.strip())
