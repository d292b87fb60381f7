"""The lecture in `examples/`: that it runs, and that what stands below its cells is what its text says."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks import NOTEBOOK_TIMEOUT, execute, run_cells

LECTURE = Path(__file__).parents[2] / "examples" / "autoencoders.ipynb"
MOST_BYTES = 1_000_000  # for a reader on the web
NUMBER = re.compile(r"-?\d+(\.\d+)?%?")
ABSOLUTE = re.compile(r"""(^|[\s'"=(/])/(?!/)[\w.-]+/""", re.MULTILINE)


def cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: NotebookNode) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def texts(notebook: NotebookNode) -> str:
    return "\n".join(text_of(output) for cell in cells(notebook) for output in cell.outputs)


def shown(cell: NotebookNode) -> list[tuple[str, ...]]:
    """What kinds of things are below a cell, in their order, and what was printed but for its numbers."""
    return [
        (output.output_type, *sorted(output.get("data", {})), NUMBER.sub("#", output.get("text", "")))
        for output in cell.outputs
    ]


def column(notebook: NotebookNode, heading: str) -> dict[str, float]:
    """This column of the first table that has it, by the names of the rows."""
    html = next(
        output.data["text/html"]
        for cell in cells(notebook)
        for output in cell.outputs
        if f"<th>{heading}</th>" in output.get("data", {}).get("text/html", "")
    )
    head, body = html.split("</thead>")
    position = re.findall("<th>(.*?)</th>", head).index(heading) - 1
    rows = re.findall("<tr>\\s*<th>(.*?)</th>(.*?)</tr>", body, re.DOTALL)
    return {name: float(re.findall("<td>(.*?)</td>", values)[position]) for name, values in rows}


def numbers(notebook: NotebookNode, line: str) -> list[float]:
    """The numbers in the line that begins so."""
    (rest,) = re.findall(rf"^ *{re.escape(line)}(.*)$", texts(notebook), re.MULTILINE)
    return [float(match[0].rstrip("%")) for match in NUMBER.finditer(rest)]


def assert_that_it_says_what_was_measured(notebook: NotebookNode) -> None:
    """What the text says of the numbers, as an inequality for each."""
    assert numbers(notebook, "validation MSE with  2 latents:") > numbers(notebook, "validation MSE with 12 latents:")
    (noisy,) = numbers(notebook, "MSE to the clean test images: noisy")
    (plain,), (denoising,) = numbers(notebook, "plain  "), numbers(notebook, "denoising  ")
    assert noisy > plain > 2 * denoising

    by_mse = column(notebook, "AUROC by MSE")
    assert min(by_mse, key=by_mse.__getitem__) == "shallow-cnn"
    assert by_mse["shallow-cnn"] < 0.75
    assert by_mse["strided-32"] > 0.97

    (normal_detail, detail), (normal_ink, ink) = (numbers(notebook, f"median {name}:") for name in ("detail", "ink"))
    assert normal_detail > detail
    assert normal_ink < ink
    assert numbers(notebook, "correlation of detail and MSE among the ones:")[0] > 0.2
    pale_mse, pale_relative = numbers(notebook, "AUROC of the palest ones:")
    assert pale_mse < 0.5 < 0.95 < pale_relative

    auroc = column(notebook, "AUROC")
    assert auroc["mse"] < 0.85, "the digit 1 should be hard for the MSE"
    assert auroc["relative"] < auroc["mse"] + 0.05
    assert max(auroc, key=auroc.__getitem__) == "aligned-knn"
    assert auroc["aligned-knn"] > 0.95

    ((by_hand, threshold),) = re.findall(r"highest score: (\S+) +the detector's threshold: (\S+)", texts(notebook))
    assert by_hand == threshold
    on_average, _, above = numbers(notebook, "marginal    mean")
    lower, _, seldom = numbers(notebook, "conditional mean")
    assert on_average < 0.055
    assert lower < on_average
    assert seldom < 15 < above


@pytest.fixture(scope="module")
def lecture() -> NotebookNode:
    """The lecture as it is in the repository."""
    return nbformat.read(LECTURE, as_version=4)


def test_the_lecture_as_it_is_read_on_the_web_was_run_from_top_to_bottom(lecture: NotebookNode) -> None:
    nbformat.validate(lecture)
    assert LECTURE.stat().st_size < MOST_BYTES
    assert [cell.execution_count for cell in cells(lecture)] == list(range(1, len(cells(lecture)) + 1))
    assert_that_it_is_quiet(lecture)
    assert_that_it_says_what_was_measured(lecture)


def assert_that_it_is_quiet(notebook: NotebookNode) -> None:
    for cell in cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", text_of(output)
            assert "Warning" not in text_of(output)
            assert not ABSOLUTE.search(text_of(output)), "a path of the machine that it was run on"
        assert len([output for output in cell.outputs if output.output_type == "display_data"]) <= 2


@pytest.mark.slow
@pytest.mark.timeout(NOTEBOOK_TIMEOUT)
def test_the_lecture_runs_in_a_clean_folder_and_shows_what_it_shows_on_the_web(
    lecture: NotebookNode, tmp_path: Path
) -> None:
    again = nbformat.read(LECTURE, as_version=4)
    for cell in cells(again):
        cell.outputs = []
    execute(again, tmp_path)
    assert_that_it_is_quiet(again)
    assert_that_it_says_what_was_measured(again)
    assert list(map(shown, cells(again))) == list(map(shown, cells(lecture)))
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns", ".ipython"}


COMMANDS = """
import anomaly_ae
result = anomaly_ae.train(anomaly_ae.RunConfig(normal="0,1,2", epochs=40))
---
result
---
anomaly_ae.evaluate()
---
from pathlib import Path
from PIL import Image
Path("digits").mkdir()
digits = anomaly_ae.load_dataset("digits").files["train"].images
for i in range(300):
    Image.fromarray(digits[i, 0].numpy()).save(f"digits/{i}.png")
anomaly_ae.score("digits", output="rows.csv")
---
import matplotlib.pyplot
anomaly_ae.load("latest").plot(digits[:3])
"""


@pytest.mark.slow
def test_commands_show_a_few_quiet_lines_and_their_results_in_a_notebook(tmp_path: Path) -> None:
    training, result, evaluation, scoring, picture = run_cells(tmp_path, *COMMANDS.split("---"))
    (said,) = training
    assert said.output_type == "display_data"
    about, run, epochs = text_of(said).splitlines()
    assert "normal images" in about
    assert run.startswith("run ")
    assert epochs.startswith("epoch 40/40 · loss ")
    for output, first in (
        (result[0], "run  "),
        (evaluation[1], "digits: normal 0, 1, 2"),
        (scoring[1], "detector  "),
    ):
        assert output.output_type == "execute_result"
        assert text_of(output).startswith(first)
    assert text_of(evaluation[0]).splitlines()[-1].startswith("figures and tables are in mlruns/runs/")
    assert text_of(scoring[0]).splitlines()[-1] == "300 of 300 files"
    assert [(output.output_type, "image/png" in output.get("data", {})) for output in picture] == [
        ("display_data", False),
        ("execute_result", True),
    ]
