"""Pictures for a page: drawn by matplotlib, the same bytes each time, readable in light and dark.

In the page the SVG is inline, its colours are CSS variables and its styles are classes, so that the page needs no inline
style. Beside the page the same picture lies as an SVG and a PNG file in its light colours.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from loragrid.runtime.atomic_files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Light-mode colours and the CSS variables that stand for them in the page. The series are those of Okabe & Ito 2008,
# "Color Universal Design", which the common forms of colour blindness keep apart.
COLOURS = {
    "ink": "#1f2328",
    "muted": "#5f6770",
    "grid": "#dfe3e8",
    "paper": "#fffffe",
    "base": "#7f8790",
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#009e73",
    "s3": "#a8568f",
    "s4": "#b58900",
    "s5": "#3f8fbf",
}
SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")
WIDTH_INCHES = 5.2  # 374 points: on a phone the picture is shown at about its own size, so that text stays readable
TEXT_POINTS = 10


@dataclass
class Styles:
    """The inline styles of all pictures of a page, each turned into a class of the page's one style sheet."""

    classes: dict[str, str] = field(default_factory=dict)

    def name(self, style: str) -> str:
        """The class for a style attribute's text."""
        return self.classes.setdefault(style, f"g{len(self.classes)}")

    def css(self) -> str:
        """The rules of all classes."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self.classes.items())


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's settings for reproducible pictures; text stays text and `$` stays a dollar sign."""
    import matplotlib

    settings = {
        "svg.hashsalt": "loragrid",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": TEXT_POINTS,
        "axes.titlesize": TEXT_POINTS,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": TEXT_POINTS - 1,
        "xtick.labelsize": TEXT_POINTS - 1,
        "ytick.labelsize": TEXT_POINTS - 1,
        "text.color": COLOURS["ink"],
        "axes.labelcolor": COLOURS["muted"],
        "axes.edgecolor": COLOURS["grid"],
        "axes.titlecolor": COLOURS["ink"],
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "axes.grid": True,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(height_inches: float) -> "Figure":
    """An empty figure of the page's width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def svg_text(figure: "Figure") -> str:
    """The figure as an SVG document, without date or maker."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def save(figure: "Figure", folder: Path, name: str) -> str:
    """Write {name}.svg and {name}.png into a folder and return the SVG document."""
    document = svg_text(figure)
    write_bytes(folder / f"{name}.svg", document.encode())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    write_bytes(folder / f"{name}.png", buffer.getvalue())
    return document


def inline(document: str, *, name: str, title: str, styles: Styles) -> str:
    """An SVG document as an element of the page: ids made unique by `name`, styles as classes, `title` for screen readers."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    # Tag by tag: text between tags may come from anywhere and must not be mistaken for an attribute.
    svg = re.sub(r"<[^<>]+>", lambda found: _page_tag(found[0], name, styles), svg)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-labelledby="{name}-title">'
    return f'{head}<title id="{name}-title">{escape(title)}</title>{svg[svg.index(">") + 1 :].strip()}'


def _page_tag(tag: str, name: str, styles: Styles) -> str:
    tag = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', tag)
    return re.sub(r'\bstyle="([^"]*)"', lambda found: f'class="{styles.name(_page_style(found[1]))}"', tag)


def _page_style(style: str) -> str:
    """A style with the page's colours and font."""
    style = re.sub(r"font-family:[^;]*;?", "", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    return "; ".join(part.strip() for part in style.split(";") if part.strip())


def spread_labels(positions: list[float], gap: float) -> list[float]:
    """Positions moved apart to at least `gap`, in their order, as near to where they were as a single pass allows."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = list(positions)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    shift = sum(placed[i] - positions[i] for i in order) / len(order) if order else 0.0
    return [value - shift for value in placed]


def label_ends(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Names right of the plot, at the ends (x, y, name, colour) of lines, moved apart where they would touch."""
    low, high = axes.get_ylim()
    heights = spread_labels([min(loss, high) for _, loss, *_ in ends], (high - low) * 0.075)
    for (_, _, label, colour), height in zip(ends, heights):
        axes.annotate(
            label,
            (1.0, (height - low) / (high - low)),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            weight="bold",
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
        )
