"""The page's server: what a browser may ask of a review, and that nobody else may.

All addresses begin with a token that only whoever started the server knows. Requests that name another host, or come
from another page, are refused: a page on the network that knew the port could otherwise have the browser ask for it.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.resources import files
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from anomaly_ae.calibration.single_precision import float32_below
from anomaly_ae.errors import AnomalyAEError, one_line
from anomaly_ae.review.pictures import Pictures
from anomaly_ae.review.review_results import Query, Shown, SortedBy
from anomaly_ae.review.session import Session

LOOPBACK_HOST = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
STATIC = {"page.js": "text/javascript", "page.css": "text/css"}
PAGE = "page.html"
Number = Annotated[float, Body(embed=True)]


def make_app(session: Session, pictures: Pictures, port: int, token: str) -> FastAPI:
    """The application that serves a review at `http://127.0.0.1:port/token/`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    hosts = {f"{name}:{port}" for name in (LOOPBACK_HOST, "localhost")}

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request) if _is_ours(request, hosts, token) else _refusal("this is not for you", 403)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(RequestValidationError)
    def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return _refusal(one_line(Exception(str(error.errors()[0]["msg"]))), 422)

    @app.exception_handler(AnomalyAEError)
    def explain(_: Request, error: AnomalyAEError) -> JSONResponse:
        return _refusal(one_line(error), 422)

    app.include_router(_data(session), prefix=f"/{token}")
    app.include_router(_images(pictures), prefix=f"/{token}")
    return app


def _is_ours(request: Request, hosts: set[str], token: str) -> bool:
    """Whether it knows the token, and comes from our own page or from what is no page."""
    origin, asked = request.headers.get("origin"), request.url.path.split("/")[1]
    return (
        request.headers.get("host") in hosts
        and (origin is None or origin in {f"http://{host}" for host in hosts})
        and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        and secrets.compare_digest(asked.encode(), token.encode())
    )


def _refusal(reason: str, status: int) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


def _data(session: Session) -> APIRouter:
    """The page, what it lists, and the two things that it can change."""
    router, lock = APIRouter(), Lock()

    @router.get("/")
    def page() -> Response:
        return _own_file(PAGE, "text/html")

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            return _refusal("there is no such file", 404)
        return _own_file(name, STATIC[name])

    @router.get("/about")
    def about() -> dict[str, Any]:
        with lock:
            return asdict(session.about())

    @router.get("/at")
    def at(threshold: float) -> dict[str, Any]:
        with lock:
            session.refresh()
            return asdict(session.at(threshold))

    @router.get("/items")
    def items(
        threshold: float,
        sort: str = SortedBy.NEARNESS,
        kind: str = Shown.ALL,
        folder: str = "",
        start: int = 0,
        count: int = 100,
    ) -> dict[str, Any]:
        query = Query(sort, kind, folder, float32_below(threshold))
        with lock:
            return asdict(session.window(query, max(0, start), max(0, count)))

    @router.get("/item/{index}")
    def item(index: int) -> dict[str, Any]:
        with lock:
            return asdict(session.item(index))

    @router.post("/mark")
    def mark(
        index: Annotated[int, Body()], mark: Annotated[str, Body()], seen: Annotated[str, Body()]
    ) -> dict[str, Any]:
        with lock:
            return asdict(session.mark(index, mark, seen))

    @router.post("/keep")
    def keep(threshold: Number) -> dict[str, Any]:
        return asdict(session.keep(threshold))

    return router


def _images(pictures: Pictures) -> APIRouter:
    """Pictures of rows by their number: no path is ever taken from a browser."""
    router = APIRouter()

    @router.get("/thumbnail/{index}")
    def thumbnail(index: int) -> Response:
        return Response(pictures.thumbnail(index), media_type="image/webp")

    @router.get("/picture/{index}")
    def picture(index: int) -> Response:
        return Response(pictures.picture(index), media_type="image/webp")

    @router.get("/rebuilt/{index}")
    def rebuilt(index: int) -> Response:
        return Response(pictures.rebuilt(index), media_type="image/png")

    @router.get("/heat/{index}")
    def heat(index: int) -> Response:
        content = pictures.heat(index)
        return _refusal("the scorer has no anomaly map", 404) if content is None else _png(content)

    @router.get("/neighbors/{index}")
    def neighbors(index: int) -> list[dict[str, Any]]:
        return [asdict(each) for each in pictures.neighbors(index)]

    @router.get("/training/{index}")
    def training(index: int) -> Response:
        return _png(pictures.training_picture(index))

    return router


def _own_file(name: str, kind: str) -> Response:
    return Response(files("anomaly_ae.review").joinpath(name).read_bytes(), media_type=kind)


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")
