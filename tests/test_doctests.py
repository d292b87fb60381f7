"""The examples in the docstrings of the public names.

Each is run by itself, in a folder with a finished training of the digits 0, 1 and 2, `pictures` of the ten digits,
and marks that say of ten others that they are good.
"""

import doctest
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import anomaly_ae
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.images.sources import open_source
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scoring.marks import Mark, MarkFile
from tests.conftest import SETTINGS_THAT_LEAK_IN
from tests.decoding import decoded_here

PUBLIC = {name: getattr(anomaly_ae, name) for name in anomaly_ae.__all__ if name != "__version__"}
EXAMPLES = PUBLIC | {"anomaly_ae": anomaly_ae}


@pytest.fixture(scope="module", autouse=True)
def _decoded_here() -> Iterator[None]:
    with decoded_here():
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    digits = load_dataset("digits").files["train"]
    normal = digits.images[digits.labels < 3]
    for name, images in (("pictures", digits.images), ("new", normal.roll(1, dims=-1))):
        (folder / name).mkdir()
        for i in range(10):
            Image.fromarray(images[i, 0].numpy()).save(folder / name / f"{i}.png")
    file, source = MarkFile.beside(folder / "scores.parquet"), open_source(folder / "new")
    for path in source.pictures().paths:
        file.append(Mark.of(source, path, "good"))
    home = RunStore.find(str(folder / "mlruns"))
    anomaly_ae.train(RunConfig(normal="0,1,2", epochs=2), home=home, tracking=False)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_do_what_they_say(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "examples", symlinks=True)
    monkeypatch.chdir(folder)
    for setting in SETTINGS_THAT_LEAK_IN:
        monkeypatch.delenv(setting, raising=False)
    tests = doctest.DocTestFinder().find(EXAMPLES[name], name, globs={})
    assert tests[0].name == name
    assert tests[0].examples, "there is none"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed = sum(runner.run(test, out=said.append).failed for test in tests)
    assert not failed, "".join(said)
