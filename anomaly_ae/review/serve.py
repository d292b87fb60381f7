"""Serving a review until Ctrl-C."""

import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anomaly_ae.errors import UsageError
from anomaly_ae.review.pictures import Pictures
from anomaly_ae.review.session import Session
from anomaly_ae.review.web import LOOPBACK_HOST, make_app
from anomaly_ae.runs.store import RunStore
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.atomic import expand

TOKEN_BYTES = 24


def review(
    output: str | Path,
    model: str | None = None,
    *,
    folder: str | None = None,
    port: int = 0,
    open_browser: Callable[[str], object] | None = webbrowser.open,
    home: RunStore | None = None,
) -> None:
    """Serve a page about a scored output on the loopback address until Ctrl-C.

    port: a free one by default; folder: where the pictures are, if that is not where they were scored
    Raises what `Session.open` raises, and `UsageError` when the port is taken.
    """
    import uvicorn

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK_HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be had ({error.strerror}); name another, or leave {setting('port')} out"
            ) from error
        with stage("loading the detector"):
            session = Session.open(expand(output), model, home or RunStore.find(), folder)
        token, port = secrets.token_urlsafe(TOKEN_BYTES), listening.getsockname()[1]
        address = f"http://{LOOPBACK_HOST}:{port}/{token}/"
        with Pictures(session) as pictures:
            app = make_app(session, pictures, port, token)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
            listening.listen()
            logger.info(f"the review of {output} is at {address} (stop it with Ctrl-C)")
            if open_browser:
                open_browser(address)
            with suppress(KeyboardInterrupt):  # which uvicorn raises again when it has ended in order
                server.run(sockets=[listening])
    logger.info(f"the marks are in {session.marks.path}" if any(session.marks) else "nothing is marked")
