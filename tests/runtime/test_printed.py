"""Results as JSON and as text."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

import anomaly_ae
from anomaly_ae.runs.pipeline_results import PublishedRow
from anomaly_ae.runtime.printed import Columns, Printed, as_text, from_dict, to_dict


@dataclass(frozen=True)
class Odd:
    class_: str
    others: Columns
    last: PublishedRow | None


ROW = Odd("a\nb", Columns({"auroc 3": 0.5}), None)


def test_columns_stand_among_the_fields_in_their_order_and_come_back() -> None:
    assert list(to_dict(ROW).items()) == [("class", "a\nb"), ("auroc 3", 0.5), ("last", None)]
    assert from_dict(Odd, to_dict(ROW)) == ROW
    assert from_dict(PublishedRow, {"system": "s", "of another version": 1}).ours is None


def test_what_is_in_rows_cannot_steer_a_terminal() -> None:
    @dataclass(frozen=True)
    class Result(Printed):
        rows: list[Odd]

    @as_text.register
    def _(result: Result) -> str:
        return result.rows[0].class_

    assert str(Result([ROW])) == "a\\nb"
    assert json.loads(json.dumps(Result([ROW]).to_dict())) == {"rows": [to_dict(ROW)]}


def results(kind: type[Printed]) -> Iterator[type[Printed]]:
    for each in kind.__subclasses__():
        yield each
        yield from results(each)


def test_every_result_has_a_text() -> None:
    for module in pkgutil.walk_packages(anomaly_ae.__path__, "anomaly_ae."):
        if module.name.endswith((".results", ".evaluation", ".reporting.text")):
            importlib.import_module(module.name)
    kinds = {kind for kind in results(Printed) if kind.__module__.startswith("anomaly_ae.")}
    assert len(kinds) >= 10
    assert not [kind for kind in kinds if as_text.dispatch(kind) is as_text.dispatch(object)]
