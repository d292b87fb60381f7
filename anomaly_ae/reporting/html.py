"""Self-contained HTML pages, of this package's templates, and what is put into them."""

import base64
import io
import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from anomaly_ae.escaping import printable
from anomaly_ae.reporting.figures.saving import Array, encoded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARP = 64  # pixels up to which a picture is kept to the pixel


def fill(template: str, **parts: Any) -> str:
    """A page of the package with its parts put in: text as people read it, `Markup` as it is."""
    from jinja2 import Environment, PackageLoader  # here, for scoring alone needs none

    def finalize(part: object) -> str:
        return part if isinstance(part, Markup) else printable(str(part))

    loader = PackageLoader("anomaly_ae.reporting", "")
    pages = Environment(loader=loader, autoescape=True, finalize=finalize, keep_trailing_newline=True)
    return pages.get_template(template).render(parts)


def picture_address(pixels: Array) -> str:
    """Pixels, uint8 (H, W) or (H, W, 3), as a data: address, exact where they are few."""
    small = max(pixels.shape[:2]) <= SHARP
    kind, content = ("png", encoded(pixels, "PNG")) if small else ("webp", encoded(pixels, "WEBP", quality=70))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def script_json(data: Any) -> Markup:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def svg(figure: "Figure") -> Markup:
    """A figure as an element of a page."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return Markup(content.getvalue()[content.getvalue().index("<svg") :])
