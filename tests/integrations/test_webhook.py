import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest

from anomaly_ae.errors import UsageError
from anomaly_ae.integrations.webhook import SECRET, Outbox, check_webhook
from tests.receiver import Receiver


def send(folder: Path, url: str, *ids: int, seconds: float = 60.0) -> int:
    """Send messages; how many wait at the end."""
    outbox = Outbox(folder, url)
    outbox.start()
    outbox.add([{"id": i, "path": "ä"} for i in ids])
    return outbox.close(seconds)


def test_messages_are_signed_and_come_in_order(receiver: Receiver, tmp_path: Path) -> None:
    assert send(tmp_path, receiver.url, 1, 2, 3) == 0
    assert receiver.ids() == [1, 2, 3]
    for path, signature, body in receiver.came:
        assert path == "/hook"
        assert signature == "sha256=" + hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert (tmp_path / "webhook.jsonl").read_bytes() == b""
    assert send(tmp_path, receiver.url, 4) == 0
    assert receiver.ids() == [1, 2, 3, 4]


def test_a_receiver_that_fails_is_tried_again_with_longer_pauses(
    receiver: Receiver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [500, 302, 404]
    began = time.monotonic()
    assert send(tmp_path, receiver.url, 1, 2) == 0
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2
    assert receiver.ids() == [1, 1, 1, 1, 2]
    assert {path for path, *_ in receiver.came} == {"/hook"}
    said = capsys.readouterr().err
    assert said.count("messages to 127.0.0.1 wait and are sent again: it answers 500") == 1
    assert said.count("messages to 127.0.0.1 are taken again") == 1


def test_a_dead_receiver_holds_nobody_up_and_gets_its_messages_later(receiver: Receiver, tmp_path: Path) -> None:
    began = time.monotonic()
    assert send(tmp_path, "http://127.0.0.1:1/", 1, 2, seconds=0.3) == 2
    assert time.monotonic() - began < 60
    with (tmp_path / "webhook.jsonl").open("ab") as file:
        file.write(b'{"id": 3, "pa')  # killed while it was written
    assert send(tmp_path, receiver.url, 4) == 0
    assert receiver.ids() == [1, 2, 4]


def test_what_was_taken_before_a_kill_is_not_sent_again_but_for_the_last(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [200, 200, *[503] * 100]
    outbox = Outbox(tmp_path, receiver.url)
    outbox.start()
    outbox.add([{"id": i} for i in range(5)])
    while len(receiver.came) < 3:
        time.sleep(0.01)
    queue, sent = (tmp_path / "webhook.jsonl").read_bytes(), (tmp_path / "webhook.sent").read_bytes()
    outbox.close(0)
    receiver.came, receiver.answers = [], []
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "webhook.jsonl").write_bytes(queue)
    (tmp_path / "after" / "webhook.sent").write_bytes(sent)
    assert send(tmp_path / "after", receiver.url, 5) == 0
    assert receiver.ids() == [2, 3, 4, 5]


def test_a_kill_after_the_queue_was_emptied_costs_no_later_message(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "webhook.jsonl").touch()
    (tmp_path / "webhook.sent").write_text("10")  # of a queue that was longer
    assert Outbox(tmp_path, receiver.url).waiting == 0
    (tmp_path / "webhook.jsonl").write_bytes(b'{"a": 12}\n{"id": 1}\n')  # written, and killed before it was sent
    assert send(tmp_path, receiver.url, 2) == 0
    assert [json.loads(body) for _, _, body in receiver.came][:2] == [{"a": 12}, {"id": 1}]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "host/x",
        "http://",
        "http://user:word@host/",
        "http://h:x/",
        "http://a b/",
    ],
)
def test_other_addresses_are_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(SECRET, "hush")
    with pytest.raises(UsageError, match="a webhook is an http or https address"):
        check_webhook(url)


def test_without_a_secret_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(UsageError, match=f"put it into {SECRET}"):
        check_webhook("https://example.org/hook")
    monkeypatch.setenv(SECRET, "hush")
    check_webhook("https://example.org/hook?token=1")
