"""The paths of files in rows and marks: a text, and beside it the bytes of those that are no UTF-8."""

from anomaly_ae.escaping import shown


def bytes_beside(path: bytes) -> bytes | None:
    """What has to stand beside `shown(path)` for the path to be known: itself where it is no UTF-8."""
    return None if shown(path).encode() == path else path


def path_of(text: str, beside: bytes | str | None) -> bytes:
    """The path that is shown as `text`, by what stands beside it, in hexadecimal where a format has no bytes.

    Raises `ValueError` where that is no hexadecimal.
    """
    if beside is None:
        return text.encode()
    return bytes.fromhex(beside) if isinstance(beside, str) else beside
