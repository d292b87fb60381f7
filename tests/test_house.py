"""The house: imports go down the floors, never up and never along one; names are used once; tests stand beside what
they test; and the public names are the public names.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import anomaly_ae

PACKAGE = Path(anomaly_ae.__file__).parent
FLOORS = (
    {"__main__"},
    {"cli"},
    {"review"},
    {"workflows"},
    {"integrations", "tracking"},
    {"reporting"},
    {"scoring", "runs"},
    {"detector"},
    {"training", "scorers", "calibration"},
    {"objectives", "metrics"},
    {"autoencoders", "datasets"},
    {"augmentation", "images"},
    {"config"},
    {"storage"},
    {"runtime"},
    {"errors"},
    {"escaping"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
# A detector's own methods that are the public functions with it, so that one may go on from it in a notebook
SHORTCUTS = {("detector.detector", name) for name in ("FolderScores", "score_folder", "plot")}
ATTRIBUTES = {"__version__", "__file__"}  # of the package itself
CATALOGUES = ("autoencoders", "objectives", "scorers")  # whose entries have to pass the same tests, all in one file
# Other modules without a test file of their own, and where they are tested: together, or by what uses them
TESTED_ELSEWHERE = {
    "datasets/test_odd_layouts.py": "class_names placements",
    "config/test_run_config.py": "presets",
    "calibration/test_conformal.py": "single_precision",
    "datasets/test_asking_what_is_normal.py": "layout_texts",
    "datasets/test_image_folder.py": "catalogue decoded folder_words image_set picture_masks",
    "datasets/test_folder_layout.py": "picture_layout",
    "detector/test_evaluation.py": "measuring",
    "images/test_decode_pool.py": "decode_worker",
    "images/test_sources.py": "listing",
    "images/test_roi.py": "boxes roi_file",
    "reporting/test_figures.py": "curves distributions image_grids saving style",
    "runs/test_store.py": "location record",
    "review/test_session.py": "review_results row_queries",
    "scoring/test_job.py": "scoring_results writers",
    "storage/test_atomic.py": "memmap",
    "detector/test_serialization.py": "schema",
    "runs/test_pipeline_file.py": "yaml_files",
    "test_cli.py": "app catalogue_commands completion detector_commands folder_commands run_commands lazy",
    "tracking/test_run_logger.py": "calls training_logger remote_runs download",
    "end_to_end/test_ui.py": "server ui_view",
    "workflows/test_delete.py": "deletion",
    "workflows/test_evaluate.py": "missed",
    "workflows/test_draw.py": "run_figures",
    "workflows/test_pipeline.py": "parallel",
    "tracking/test_registry.py": "promote",
    "workflows/test_score.py": "scored_folders progress",
    "integrations/test_sklearn.py": "estimator_file",
    "workflows/test_calibrate.py": "calibration_images",
    "workflows/test_train.py": "fit find_model resolve training_callbacks",
    "runtime/test_printed.py": "run_results pipeline_results detectors phrases listings",
}


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module of the package, or name of the package itself, that a file imports, in whatever form."""
    package = ("anomaly_ae", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(parsed(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (each.value for each in node.args if isinstance(each, ast.Constant))


def rooms_imported(path: Path) -> set[str]:
    names = {name.removeprefix("anomaly_ae.") for name in imported(path) if name.startswith("anomaly_ae.")}
    names = {name for name in names - ATTRIBUTES if (module_of(path), name) not in SHORTCUTS}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_floors(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for other in rooms_imported(path) - {room}:
        assert FLOOR_OF[other] > FLOOR_OF[room], f"{room} imports {other}"


def test_every_form_of_import_is_seen(tmp_path: Path) -> None:
    forms = (
        "import anomaly_ae.cli",
        "import anomaly_ae.cli.app as app",
        "from anomaly_ae import cli",
        "from anomaly_ae.cli import app",
        "from .. import cli",
        "from ..cli import app",
        "def f():\n    from anomaly_ae import cli",
        "import_module('anomaly_ae.cli')",
    )
    file = PACKAGE / "storage" / "atomic.py"
    for form in forms:
        fake = tmp_path / "storage" / "atomic.py"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(form)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
            assert "cli" in rooms_imported(fake), form
    assert "cli" not in rooms_imported(file)


def test_no_two_modules_public_classes_or_constants_have_one_name() -> None:
    modules, classes, constants = (defaultdict[str, list[str]](list) for _ in range(3))
    for path in FILES:
        if path.stem not in ("__init__", "__main__"):
            modules[path.stem].append(module_of(path))
        for node in parsed(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(module_of(path))
            if isinstance(node, ast.Assign | ast.AnnAssign):
                stored = (each for each in ast.walk(node) if isinstance(each, ast.Name) and each.id.isupper())
                for each in stored:
                    if isinstance(each.ctx, ast.Store):
                        constants[each.id].append(module_of(path))
    names = (modules, classes, constants)
    assert not {name: where for kind in names for name, where in kind.items() if len(where) > 1}


def test_every_module_has_its_test_file_or_stands_on_the_list() -> None:
    tests = Path(__file__).parent
    without = {
        path.stem
        for path in FILES
        if path.stem not in ("__init__", "__main__")
        and path.parent.name not in CATALOGUES
        and not (tests / path.relative_to(PACKAGE)).with_name(f"test_{path.name}").exists()
    }
    listed = [name for names in TESTED_ELSEWHERE.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert not without - set(listed), "give them test files, or put them on the list above"
    assert not set(listed) - without, "they have test files, or are gone: take them off the list above"
    assert all((tests / where).exists() for where in TESTED_ELSEWHERE)


def test_flags_are_spelt_in_one_place_below_the_command_line() -> None:
    """`runtime.spelling` makes the commands that messages suggest; git and MLflow, which are called, have theirs."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = set()
    for path in FILES:
        nodes = list(ast.walk(parsed(path.read_text())))
        docstrings = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, documented)}
        texts = {str(node.value) for node in nodes if isinstance(node, ast.Constant)} - docstrings
        if any(re.search(r"(^|\s)--[a-z]", text) for text in texts):
            found.add(module_of(path))
    calling = {"tracking.client", "tracking.descriptions", "tracking.server"}
    assert {name for name in found if not name.startswith("cli")} == calling | {"runtime.spelling"}


def test_mlflow_is_imported_in_tracking_and_in_the_code_of_its_model_alone() -> None:
    importing = {path for path in FILES if re.search(r"(import|from) mlflow", path.read_text())}
    assert {path.parent.name for path in importing - {PACKAGE / "integrations" / "pyfunc.py"}} == {"tracking"}


def test_every_public_name_can_be_had() -> None:
    for name in anomaly_ae.__all__:
        assert getattr(anomaly_ae, name) is not None
    assert set(dir(anomaly_ae)) == set(anomaly_ae.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = anomaly_ae.nonsense


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
