from pathlib import Path

import pytest

from anomaly_ae.errors import StorageError, UsageError
from anomaly_ae.runs.pipeline_file import read_pipeline_file

PIPELINES = Path(__file__).parents[2] / "pipelines"
SYSTEM = """
name: small
data: {dataset: digits}
training:
  epochs: 2
matrix:
  normal: [all, "0,1"]
  latent: [3, 4]
published:
  test_mse: 0.01
"""


def write(folder: Path, text: str, name: str = "p.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_every_combination_is_a_cell_and_the_first_has_the_published_figures(tmp_path: Path) -> None:
    plan = read_pipeline_file(write(tmp_path, SYSTEM))
    assert [(cell.config.normal, cell.config.latent) for cell in plan.cells] == [
        *(("all", 3), ("all", 4), ("0,1", 3), ("0,1", 4))
    ]
    assert [cell.name for cell in plan.cells[:2]] == [
        "small · normal all · latent 3",
        "small · normal all · latent 4",
    ]
    assert {cell.row for cell in plan.cells} == {"small · latent 3", "small · latent 4"}
    assert [dict(cell.published) for cell in plan.cells] == [{"test_mse": 0.01}, {}, {}, {}]
    assert {cell.config.epochs for cell in plan.cells} == {2}


def test_without_a_matrix_there_is_one_cell_named_after_the_file(tmp_path: Path) -> None:
    plan = read_pipeline_file(write(tmp_path, "normal: 0,1,2\n", "alone.yaml"))
    assert [cell.name for cell in plan.cells] == ["alone"]


def test_any_field_can_be_overridden_also_one_of_the_matrix(tmp_path: Path) -> None:
    file = write(tmp_path, SYSTEM)
    plan = read_pipeline_file(file, [("training.epochs", "7"), ("normal", "5")])
    assert {(cell.config.epochs, cell.config.normal) for cell in plan.cells} == {(7, "5")}
    assert len(plan.cells) == 2
    assert len(read_pipeline_file(file, [("matrix.seed", "[0, 1, 2]")]).cells) == 12
    assert read_pipeline_file(file).digest() == read_pipeline_file(file).digest() != plan.digest()


def test_systems_are_run_one_after_the_other_and_settings_beside_them_win(tmp_path: Path) -> None:
    write(tmp_path, SYSTEM, "one.yaml")
    write(tmp_path, SYSTEM.replace("small", "other"), "two.yaml")
    both = write(tmp_path, "systems: [one.yaml, two.yaml]\nlatent: 9\nabout: both of them\n")
    plan = read_pipeline_file(both, [("epochs", "1")])
    assert [cell.row for cell in plan.cells] == ["small", "small", "other", "other"]
    assert {(cell.config.latent, cell.config.epochs) for cell in plan.cells} == {(9, 1)}
    assert plan.about == "both of them"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("normal: all\nepoch: 3\n", 2, "did you mean 'epochs'"),
        ("training:\n  normal: all\n  epoch: 3\n", 2, "did you mean 'data.normal'"),
        ("training:\n  epochs: 3\n  lerning_rate: 1\n", 3, "did you mean 'training.learning_rate'"),
        ("normal: 0\nepochs: many\n", 2, "whole number"),
        ("normal: 0\n\ndropout: 2\n", 3, "from 0 to 0.99"),
        ("matrix:\n  latnet: [1]\n", 2, "did you mean 'latent'"),
        ("matrix:\n  latent: 3\n", 2, "must be a list"),
        ("matrix:\n  latent: [1, 0]\n", 2, "from 1 to 16777216"),
        ("published:\n  test_msee: 1\n", 2, "did you mean 'test_mse'"),
        ("published:\n  test_mse: low\n", 2, "must be a number"),
        ("epochs: 1\nlatent: 3\nepochs: 2\n", 3, "was said before"),
        ("epochs: 1\ntraining: {epochs: 2}\n", 2, "was said before"),
        ("latent: 1\nmatrix: {latent: [2]}\n", 1, "stands in the matrix too"),
        ("systems: [absent.yaml]\n", 1, "absent.yaml"),
        ("systems: [p.yaml]\n", 1, "names itself"),
        ("systems: 3\n", 1, "must be a list"),
        ("systems: []\n", 1, "must be a list"),
        ("a: [\n", 2, "not valid YAML"),
        ("normal: 0\nautoencoder: vanila\n", 2, "did you mean 'vanilla'"),
        ("normal: 0\nmatrix:\n  scorer: [mse, mes]\n", 3, "did you mean 'mse'"),
        ("published: 3\n", 1, "must stand lines"),
        ("systems: [p.yaml]\npublished: {test_mse: 1}\n", 2, "in the files of the systems"),
    ],
)
def test_what_is_wrong_names_the_file_the_line_and_the_right_key(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_pipeline_file(write(tmp_path, text))
    assert f"p.yaml, line {line}: " in str(caught.value)
    assert reason in str(caught.value)


def test_empty_sections_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    plan = read_pipeline_file(
        write(tmp_path, "normal: 0\nname:\nabout:\ndata:\nmatrix:\n  # seed: [0, 1]\npublished:\n")
    )
    assert (plan.name, plan.about, len(plan.cells)) == ("p", "", 1)


def test_cells_of_the_same_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, SYSTEM, "one.yaml")
    write(tmp_path, SYSTEM, "two.yaml")
    with pytest.raises(UsageError, match="more than one cell called 'small"):
        read_pipeline_file(write(tmp_path, "systems: [one.yaml, two.yaml]\n"))
    with pytest.raises(UsageError, match="more than one cell"):
        read_pipeline_file(write(tmp_path, "normal: 0\nmatrix: {seed: [0, 0]}\n"))


def test_where_a_setting_is_overridden_the_source_s_figures_are_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, SYSTEM)
    assert read_pipeline_file(file, [("data_dir", "elsewhere")]).cells[0].published == {"test_mse": 0.01}
    assert read_pipeline_file(file, [("epochs", "1")]).cells[0].published == {}


def test_the_scorers_to_compare_can_be_overridden_in_every_file(tmp_path: Path) -> None:
    file = write(tmp_path, SYSTEM + "compare_scorers: [mse, pca]\n")
    asked = read_pipeline_file(file, [("compare_scorers", "[pixel-knn]"), ("seed", "3")])
    assert {(cell.compare_scorers, cell.config.seed) for cell in asked.cells} == {(("pixel-knn",), 3)}
    assert read_pipeline_file(file, [("compare_scorers", "[]")]).cells[0].compare_scorers == ()
    both = write(tmp_path, f"systems: [{file.name}]\n", "both.yaml")
    assert read_pipeline_file(both, [("compare_scorers", "[mse]")]).cells[0].compare_scorers == ("mse",)
    assert read_pipeline_file(both).cells[0].compare_scorers == ("mse", "pca")


def test_the_place_of_the_data_is_no_part_of_what_was_asked(tmp_path: Path) -> None:
    file = write(tmp_path, SYSTEM)
    assert read_pipeline_file(file).digest() == read_pipeline_file(file, [("data_dir", "elsewhere")]).digest()


def test_wrong_overrides_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, SYSTEM)
    with pytest.raises(UsageError, match=r'overrides="training.epoch=1": .*did you mean .training.epochs.'):
        read_pipeline_file(file, [("training.epoch", "1")])
    with pytest.raises(UsageError, match='overrides="about=1": about is of the file itself; change it there'):
        read_pipeline_file(file, [("about", "1")])
    with pytest.raises(UsageError, match="must be a list of scorers"):
        read_pipeline_file(file, [("compare_scorers", "mse")])
    with pytest.raises(UsageError, match="takes a list"):
        read_pipeline_file(file, [("matrix.seed", "[")])
    with pytest.raises(StorageError, match="cannot read the file"):
        read_pipeline_file(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted(PIPELINES.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_pipeline_file_here_can_be_read(path: Path) -> None:
    plan = read_pipeline_file(path)
    assert plan.cells
    assert plan.about
    assert f"anomaly-ae run {path.relative_to(PIPELINES.parent).as_posix()}" in path.read_text()


def test_all_ancestors_are_in_the_file_that_compares_them() -> None:
    folder = PIPELINES / "ancestors"
    alone = {read_pipeline_file(path).name for path in folder.glob("*.yaml")} - {"ancestors"}
    assert {cell.row for cell in read_pipeline_file(folder / "all.yaml").cells} == alone
    assert len(alone) == 8


def test_names_in_a_matrix_stay_what_stands_there(tmp_path: Path) -> None:
    plan = read_pipeline_file(write(tmp_path, "matrix: {normal: [010, yes, none], latent: [~, 4]}\n"))
    asked = [(cell.config.normal, cell.config.latent) for cell in plan.cells]
    assert asked == [(name, latent) for name in ("010", "yes", "none") for latent in (None, 4)]
    told = read_pipeline_file(write(tmp_path, "normal: 0\n"), [("matrix.normal", "[007, [1, 2]]")])
    assert [cell.config.normal for cell in told.cells] == ["007", "1,2"]


@pytest.mark.parametrize("figure", [".nan", ".inf", "nan", "1e999", "many", "true", "~", "[1]", "9" * 5000])
def test_a_published_figure_that_is_no_number_is_refused_before_any_cell(tmp_path: Path, figure: str) -> None:
    with pytest.raises(UsageError, match=r"p\.yaml, line 2: published\.test_mse must be a number"):
        read_pipeline_file(write(tmp_path, f"normal: 0\npublished: {{test_mse: {figure}}}\n"))


def test_endless_matrices_and_systems_are_refused_at_once(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(1, 100)))
    with pytest.raises(UsageError, match="more than 2,000 cells"):
        read_pipeline_file(
            write(tmp_path, f"normal: 0\nmatrix: {{latent: [{many}], seed: [{many}], epochs: [{many}]}}\n")
        )
    write(tmp_path, "normal: 0\nlatent: 5\n", "s0.yaml")
    for i in range(1, 7):
        write(tmp_path, f"systems: [{', '.join([f's{i - 1}.yaml'] * 20)}]\n", f"s{i}.yaml")
    with pytest.raises(UsageError, match="more than 2,000 cells"):
        read_pipeline_file(tmp_path / "s6.yaml")
    for i in range(12):
        write(tmp_path, f"systems: [d{i + 1}.yaml]\n", f"d{i}.yaml")
    with pytest.raises(UsageError, match="more deeply"):
        read_pipeline_file(tmp_path / "d0.yaml")
