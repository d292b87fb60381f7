from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anomaly_ae.review.pictures import Pictures
from anomaly_ae.review.session import Session
from anomaly_ae.review.web import make_app

testclient = pytest.importorskip("starlette.testclient")
PORT, TOKEN = 7_777, "secret"


@pytest.fixture
def client(session: Session) -> Iterator[Any]:
    with Pictures(session) as pictures:
        app = make_app(session, pictures, PORT, TOKEN)
        yield testclient.TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def test_the_page_brings_all_it_needs_and_may_use_nothing_else(client: Any) -> None:
    page = client.get(f"/{TOKEN}/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("page.js", "page.css"):
        assert f"static/{name}" in page.text
        assert client.get(f"/{TOKEN}/static/{name}").status_code == 200
    assert "http" not in page.text.replace("http://www.w3.org", "")
    for name in ("session.py", "..%2fsession.py", "%2e%2e/%2e%2e/pyproject.toml"):
        assert client.get(f"/{TOKEN}/static/{name}").status_code in (403, 404)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/about", {}),
        ("/wrong/about", {}),
        ("//about", {}),
        (f"/{TOKEN}/about", {"host": "evil.example"}),
        (f"/{TOKEN}/about", {"host": "127.0.0.1:80"}),
        (f"/{TOKEN}/about", {"origin": "http://evil.example"}),
        (f"/{TOKEN}/about", {"origin": "null"}),
        (f"/{TOKEN}/about", {"origin": "http://127.0.0.1:80"}),
        (f"/{TOKEN}/about", {"sec-fetch-site": "cross-site"}),
    ],
)
def test_nobody_else_is_answered_nor_can_mark(
    client: Any, session: Session, path: str, headers: dict[str, str]
) -> None:
    assert client.get(path, headers=headers).json() == {"error": "this is not for you"}
    content = {"index": 0, "mark": "bad", "seen": session.item(0).state}
    answer = client.post(path.replace("about", "mark"), headers=headers, json=content)
    assert answer.status_code == 403
    assert not session.marks.path.exists()


def test_our_own_page_is_answered(client: Any) -> None:
    for headers in ({}, {"origin": f"http://127.0.0.1:{PORT}", "sec-fetch-site": "same-origin"}):
        about = client.get(f"/{TOKEN}/about", headers=headers).json()
        assert about["images"] == 61
        assert sum(about["folder_bins"]) == pytest.approx(1)


def test_numbers_items_and_marks(client: Any, session: Session, scored: Path) -> None:
    at = client.get(f"/{TOKEN}/at", params={"threshold": session.threshold}).json()
    assert at["anomalous"] == session.at(session.threshold).anomalous
    window = client.get(f"/{TOKEN}/items", params={"threshold": session.threshold, "kind": "anomalous", "count": 7})
    assert len(window.json()["items"]) == 7
    first = window.json()["items"][0]
    assert client.get(f"/{TOKEN}/item/{first['index']}").json() == first
    content = {"index": first["index"], "mark": "bad", "seen": first["state"]}
    marked = client.post(f"/{TOKEN}/mark", json=content).json()
    assert marked == first | {"mark": "bad"}
    assert len(Path(f"{scored}.marks.jsonl").read_text().splitlines()) == 1
    kept = client.post(f"/{TOKEN}/keep", json={"threshold": session.threshold}).json()
    assert kept["run_id"] in kept["command"]


@pytest.mark.parametrize(
    ("method", "path", "content", "reason"),
    [
        ("post", "mark", {"index": 0, "mark": "excellent", "seen": ""}, "unknown mark"),
        ("post", "mark", {"index": 99, "mark": "good", "seen": ""}, "no row 99"),
        ("post", "mark", {"index": 0, "mark": "good", "seen": "something else"}, "look again"),
        ("post", "mark", {"index": 0, "mark": "good"}, "Field required"),
        ("get", "at?threshold=nan", None, "finite"),
        ("get", "items?threshold=1&kind=odd", None, "unknown filter"),
        ("get", "picture/4000", None, "no row"),
        ("post", "keep", {"threshold": -1e9}, "choose a higher one"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    client: Any, method: str, path: str, content: dict[str, Any] | None, reason: str
) -> None:
    options = {"json": content} if content else {}
    answer = getattr(client, method)(f"/{TOKEN}/{path}", **options)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_pictures_come_by_number_with_their_kinds(client: Any, session: Session) -> None:
    index = int(session.rows.scored.nonzero()[0][0])
    for name, kind in (("thumbnail", "webp"), ("picture", "webp"), ("heat", "png"), ("rebuilt", "png")):
        answer = client.get(f"/{TOKEN}/{name}/{index}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    neighbors = client.get(f"/{TOKEN}/neighbors/{index}").json()
    assert client.get(f"/{TOKEN}/training/{neighbors[0]['index']}").headers["content-type"] == "image/png"
    assert client.get(f"/{TOKEN}/picture/..%2f..%2fetc%2fpasswd").status_code in (404, 422)
