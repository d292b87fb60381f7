"""Sums of named things with weights, as in mse+0.5*ssim."""

from collections.abc import Collection

from anomaly_ae.errors import UnknownName, UsageError


def names_in(text: str) -> set[str]:
    """The names in a sum, known or not."""
    return {each.rpartition("*")[2].strip() for each in text.split("+")}


def parse_weighted_sum(kind: str, text: str, known: Collection[str], example: str) -> list[tuple[float, str]]:
    """Weights and names; a weight is 1 where none is given.

    kind, known, example: what these are, their names, and a sum of them, for messages
    Raises `UnknownName`, and `UsageError` for what is no weight.
    """
    parts = []
    for each in text.split("+"):
        weight, times, name = (piece.strip() for piece in each.rpartition("*"))
        if name not in known:
            raise UnknownName(kind, name, [*known, f"or several joined by +, as in {example}"])
        try:
            factor = float(weight) if times else 1.0
        except ValueError:
            factor = 0.0
        if not 0 < factor < float("inf"):
            raise UsageError(f"the weight of {kind} {name} is a number above 0, as in {example}, and is {weight!r}")
        parts.append((factor, name))
    return parts
