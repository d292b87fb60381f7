"""Messages to a web address: queued on the disk, signed, sent one after the other in a thread of its own, and tried
again until they are taken.
"""

import hashlib
import hmac
import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anomaly_ae.errors import StorageError, UsageError, one_line
from anomaly_ae.runtime.messages import logger
from anomaly_ae.scoring.writers import json_line
from anomaly_ae.storage.atomic import flush, storage_errors, write_bytes, write_with

SECRET = "ANOMALY_AE_WEBHOOK_SECRET"
SIGNATURE = "X-Signature"
QUEUE, SENT = "webhook.jsonl", "webhook.sent"  # messages, and how many bytes of them are sent
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before another try; each time twice as long
ANSWER_WITHIN = 10.0  # seconds


def check_webhook(url: str) -> None:
    """Raise `UsageError` for what is no address of a receiver, and where no secret is set to sign with."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"a webhook is an http or https address without a user's name in it, and {url} was given")
    if not os.environ.get(SECRET):
        raise UsageError(f"messages are signed with a secret that the receiver knows, too; put it into {SECRET}")


def sign(body: bytes, secret: str) -> str:
    """What stands in the header `X-Signature`."""
    return "sha256=" + hmac.new(os.fsencode(secret), body, hashlib.sha256).hexdigest()


def has_messages(folder: Path) -> bool:
    """Whether a queue in it has messages that wait."""
    queue = folder / QUEUE
    return queue.exists() and queue.stat().st_size > 0


class Outbox:
    """The queue of messages in a folder, and what sends them from `start` to `close`.

    A message counts as taken when it is answered with 2xx; one that was taken just before a kill is sent once more.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.queue, self._sent_file = folder / QUEUE, folder / SENT
        self.url, self.host, self._secret = url, urlsplit(url).hostname, os.environ[SECRET]
        self._lock, self._news, self._stop = threading.Lock(), threading.Event(), threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        with storage_errors(f"read and write {self.queue}"):
            self.waiting, self._offset = self._recover()

    def start(self) -> None:
        self._thread.start()

    def add(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Queue messages, which are on the disk then."""
        lines = [json_line(each) for each in messages]
        with self._lock, storage_errors(f"write {self.queue}"), self.queue.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
            self.waiting += len(lines)
        self._news.set()

    def close(self, seconds: float) -> int:
        """Give what waits so long to be sent; how many are left for the next time."""
        end = time.monotonic() + seconds
        while self.waiting and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.05)
        self._stop.set()
        self._news.set()
        self._thread.join(ANSWER_WITHIN)
        return self.waiting

    def _recover(self) -> tuple[int, int]:
        """How many messages wait, and after how many bytes; half a one at the end is cut off."""
        self.queue.touch()
        flush(self.queue.parent)
        with self.queue.open("rb") as file:
            ends = list(accumulate(len(line) for line in file if line.endswith(b"\n")))
        os.truncate(self.queue, ends[-1] if ends else 0)
        sent = 0
        with suppress(OSError, ValueError):
            sent = int(self._sent_file.read_text())
        if sent not in ends:  # all of them had been sent, and a kill came between emptying the queue and saying so
            sent = 0
            write_bytes(self._sent_file, b"0")
        return sum(end > sent for end in ends), sent

    def _send_all(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                reason = self._send_next()
            except (OSError, StorageError) as error:
                reason = one_line(error)
            if reason and not pause:
                logger.warning(f"messages to {self.host} wait and are sent again: {reason}")
            if pause and not reason:
                logger.info(f"messages to {self.host} are taken again")
            pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE) if reason else 0.0

    def _send_next(self) -> str | None:
        """Send the next message, or wait for one; why it was not taken, or None."""
        with self._lock, self.queue.open("rb") as file:  # so that no line is half written
            file.seek(self._offset)
            line = file.readline()
        if not line:
            self._news.wait()
            self._news.clear()
            return None
        if not (reason := self._send(line[:-1])):
            self._mark_sent(len(line))
        return reason

    def _send(self, body: bytes) -> str | None:
        """Send a message; why it was not taken, or None."""
        headers = {"Content-Type": "application/json", SIGNATURE: sign(body, self._secret)}
        request = urllib.request.Request(self.url, body, headers)
        try:
            with self._opener.open(request, timeout=ANSWER_WITHIN):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answers {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return one_line(getattr(error, "reason", None) or error)

    def _mark_sent(self, size: int) -> None:
        """Remember that the next message is sent, and empty the queue when that was the last one."""
        with self._lock:
            self._offset += size
            self.waiting -= 1
            if emptied := not self.waiting:
                os.truncate(self.queue, 0)
                self._offset = 0
            text = str(self._offset)  # on the disk before there is another message: it would be taken for sent
            write_with(self._sent_file, lambda path: path.write_text(text), durable=emptied)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is sent to one address goes to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None
