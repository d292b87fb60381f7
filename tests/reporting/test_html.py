import json
import re

import numpy as np
from matplotlib.figure import Figure

from anomaly_ae.reporting.comparison import comparison_page
from anomaly_ae.reporting.figures.saving import as_pixels
from anomaly_ae.reporting.folder_report import PAGE_BYTES, report_page
from anomaly_ae.reporting.html import picture_address

EVIL = "</script><script>alert(1)</script>{{data}} & \"'.png"


def make(**parts: object) -> str:
    usual = {"title": "t", "facts": [], "histogram": Figure(), "pictures": [], "rows": [], "errors": []}
    return report_page(**usual | parts)


def data_in(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_names_cannot_become_code() -> None:
    page = make(title=EVIL, facts=[("name", EVIL)], rows=[(EVIL, 1.0, 0.5, True)], errors=[(EVIL, EVIL)])
    assert "<script>alert" not in page
    assert data_in(page)["rows"]["items"] == [[EVIL, 1.0, 0.5, True]]
    assert page.count("<script") == 2
    assert "default-src 'none'" in page
    compared = comparison_page(EVIL, {EVIL: [["", EVIL], [EVIL, EVIL]]}, {EVIL: Figure()})
    assert "<script" not in compared
    assert compared.count("<th>") == compared.count("<td>") == 2
    assert "\\u202e" in comparison_page("\u202e", {}, {})  # a mark that turns the direction of writing


def test_the_page_is_kept_small_and_says_how_much_is_left_out(monkeypatch: object) -> None:
    rows = ((f"{i:06}.png", 1.0, 0.5, True) for i in range(400_000))
    page = make(rows=rows)
    kept = data_in(page)["rows"]
    assert kept["total"] == 400_000
    assert 100_000 < len(kept["items"]) < 400_000
    assert len(page) < PAGE_BYTES["rows"] + 100_000


def test_pictures_are_part_of_the_page() -> None:
    gray = picture_address(as_pixels(np.random.default_rng(0).random((1, 8, 8))))
    colour = picture_address(as_pixels(np.zeros((3, 200, 100))))
    assert gray.startswith("data:image/png;base64,")
    assert colour.startswith("data:image/webp;base64,")
