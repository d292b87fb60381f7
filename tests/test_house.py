"""The house: imports go down the floors, never up and never along one, and the public names are the public names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anomaly_ae

PACKAGE = Path(anomaly_ae.__file__).parent
FLOORS = (
    {"__main__"},
    {"cli"},
    {"pipeline"},
    {"tracking", "doors"},
    {"folder", "report", "evaluation", "comparison", "benchmark"},
    {"figures"},
    {"detector", "runs", "plan"},
    {"serialization"},
    {"calibration", "drift", "scorers", "training"},
    {"objectives", "metrics", "pixel_metrics"},
    {"autoencoders", "data"},
    {"config", "texts", "torch_state"},
    {"files", "machine", "lazy", "progress", "schema", "tables", "yaml_files"},
    {"errors"},
    {"escaping"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def rooms_imported(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[1] for name in names if name.startswith("anomaly_ae.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_floors(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in rooms_imported(path) - {room}:
        assert FLOOR_OF[other] > FLOOR_OF[room], f"{room} imports {other}"


def test_mlflow_is_imported_in_tracking_and_in_the_code_of_its_model_alone() -> None:
    importing = {path for path in FILES if re.search(r"(import|from) mlflow", path.read_text())}
    assert {path.parent.name for path in importing - {PACKAGE / "doors" / "pyfunc.py"}} == {"tracking"}


def test_every_public_name_can_be_had() -> None:
    for name in anomaly_ae.__all__:
        assert getattr(anomaly_ae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = anomaly_ae.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("anomaly_ae, anomaly_ae.cli, anomaly_ae.tracking.server, anomaly_ae.tracking.remote_runs", "torch numpy"),
        ("anomaly_ae.workflows.score", "matplotlib"),
    ],
)
def test_what_a_command_does_not_need_is_not_loaded(modules: str, heavy: str) -> None:
    """It would be waited for."""
    left_out = {*heavy.split(), "mlflow", "pandas", "pyarrow", "seaborn", "sklearn", "scipy.stats"}
    code = f"import sys, {modules}; assert not {left_out} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
