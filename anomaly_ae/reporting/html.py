"""Self-contained HTML pages: one to look through the scores of a folder, one that sets runs side by side."""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from anomaly_ae.escaping import printable
from anomaly_ae.reporting.figures.saving import Array

PICTURES = 500  # images shown, the most anomalous
SIDE = 160  # pixels of a picture at the most
SHARP = 64  # pixels up to which a picture is kept to the pixel
ROW_BYTES, PICTURE_BYTES, ERROR_BYTES = 8_000_000, 18_000_000, 2_000_000  # of the page, 30 MB in all


@dataclass(frozen=True)
class Report:
    """What the page shows.

    title, facts: what was scored by what, and lines of name and text
    histogram:    a figure
    pictures:     of the most anomalous images, in order: path, score, p_value, is_anomaly, and `picture`, `rebuilt`
                  and, unless the scorer has none, `heat`, as `picture_address` makes them
    rows:         of all images that have a score, the most anomalous first: path, score, p_value, is_anomaly
    errors:       of the others: path, error
    """

    title: str
    facts: Sequence[tuple[str, str]]
    histogram: Figure
    pictures: Iterable[Mapping[str, Any]]
    rows: Iterable[Sequence[Any]]
    errors: Iterable[Sequence[str]]

    def to_html(self) -> str:
        """The page; of pictures, rows and errors as many as fit into 30 MB, and it says how many do not."""
        data = {
            "pictures": _fit(self.pictures, PICTURE_BYTES),
            "rows": _fit(self.rows, ROW_BYTES),
            "errors": _fit(self.errors, ERROR_BYTES),
        }
        facts = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(text)}</dd>" for name, text in self.facts)
        histogram, title = _svg(self.histogram), _escape(self.title)
        return _fill("report.html", title=title, facts=facts, histogram=histogram, data=_script(data))


@dataclass(frozen=True)
class ComparisonPage:
    """Tables by heading, each a list of rows of text with the names first, then figures by heading, then a note."""

    title: str
    tables: Mapping[str, Sequence[Sequence[str]]]
    drawn: Mapping[str, Figure]
    note: str

    def to_html(self) -> str:
        tables = [f"<h2>{_escape(name)}</h2>{_table(rows)}" for name, rows in self.tables.items()]
        drawn = [f'<h2>{_escape(k)}</h2><div class="figure">{_svg(v)}</div>' for k, v in self.drawn.items()]
        note = f'<p class="note">{_escape(self.note)}</p>'
        return _fill("comparison.html", title=_escape(self.title), body="\n".join([*tables, note, *drawn]))


def picture_address(pixels: Array) -> str:
    """Pixels, uint8 (H, W) or (H, W, 3), as a data: address, exact where they are few."""
    content = io.BytesIO()
    small = max(pixels.shape[:2]) <= SHARP
    Image.fromarray(pixels).save(content, "PNG" if small else "WEBP", **{} if small else {"quality": 70})
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _escape(text: str) -> str:
    """Text for people as HTML."""
    return html.escape(printable(text))


def _fit(items: Iterable[Any], most: int) -> dict[str, Any]:
    """As many items as fit into so many bytes, and how many there are."""
    kept, held, left = list[Any](), 0, iter(items)
    for item in left:
        held += len(_script(item)) + 1
        if held > most:
            return {"items": kept, "total": len(kept) + 1 + sum(1 for _ in left)}
        kept.append(item)
    return {"items": kept, "total": len(kept)}


def _fill(template: str, **parts: str) -> str:
    """A page of the package with each {{name}} replaced; what is put in is not looked at again."""
    page = files("anomaly_ae.reporting").joinpath(template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as a table, the first as its head."""
    lines = ["".join(f"<{tag}>{_escape(text)}</{tag}>" for text in row) for tag, row in _tagged(rows)]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _tagged(rows: Sequence[Sequence[str]]) -> Iterable[tuple[str, Sequence[str]]]:
    return ((("td" if i else "th"), row) for i, row in enumerate(rows))


def _script(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _svg(figure: Figure) -> str:
    """A figure as an element of the page."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return content.getvalue()[content.getvalue().index("<svg") :]
