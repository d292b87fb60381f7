import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from anomaly_ae import __version__
from anomaly_ae.augmentation.transforms import AUGMENTATIONS
from anomaly_ae.autoencoders import AUTOENCODERS
from anomaly_ae.cli.app import FLAGS
from anomaly_ae.cli.completion import catalogue
from anomaly_ae.config.run_config import TYPES, RunConfig
from anomaly_ae.datasets.builtin import DATASETS
from anomaly_ae.objectives import OBJECTIVES
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scorers import SCORERS
from anomaly_ae.workflows.evaluate import evaluate
from anomaly_ae.workflows.train import train
from tests.conftest import COMMAND, Cli, Trained, clean_environment

WRONG = [
    (("train",), 2, "--normal"),
    (("train", "--normal", "0,11"), 2, "no class 11"),
    (("train", "--normal", "0-9"), 2, "nothing is left"),
    (("train", "--normal", "0", "--dataset", "mnits"), 2, "did you mean 'mnist'"),
    (("train", "--normal", "0", "--autoencoder", "con"), 2, "did you mean 'conv'"),
    (("train", "--normal", "0", "--scorer", "relativ"), 2, "did you mean 'relative'"),
    (("train", "--normal", "0", "--objective", "mze"), 2, "did you mean 'mse'"),
    (("train", "--normal", "0", "--latent", "many"), 2, "many"),
    (("train", "--normal", "0", "--target-fpr", "-0.1"), 2, "target_fpr"),
    (("train", "--normal", "0", "--target-fpr", "0.0001"), 2, "smallest rate possible"),
    (("train", "--normal", "0", "--target-fpr", "nan"), 2, "target_fpr"),
    (("train", "--normal", "0", "--learning-rate", "0"), 2, "learning_rate"),
    (("train", "--normal", "0", "--device", "tpu"), 2, "device"),
    (("train", "--normal", "0", "--set", "latnet=3"), 2, "did you mean 'latent'"),
    (("train", "--normal", "0", "--set", "latent"), 2, "KEY=VALUE"),
    (("train", "--normal", "0", "--config", "absent.yaml"), 1, "absent.yaml"),
    (("train", "--normal", "0", "--config", "."), 1, "cannot read the file"),
    (("train", "--normal", "0", "--mlruns", "a-file"), 2, "is a file"),
    (("train", "--normal", "0", "--save-to", "full"), 1, "holds other things than a detector"),
    (("train", "--normal", "0", "--save-to", "a-file/x"), 1, "cannot be saved"),
    (("train", "--normal", "0", "--mlruns", "100%"), 2, "with %, ? or #"),
    (("train", "--normal", "0", "--mlruns", "~nobody-of-this-name/x"), 2, "does not exist"),
    (("train", "--normal", "0", "--experiment", " "), 2, "experiment must not be empty"),
    (("train", "--normal", "0", "--dataset", "mnist", "--data-dir", "a-file"), 1, "is a file"),
    (("train", "--nromal", "0"), 2, "--normal"),
    (("train", "--resume", "abcdef"), 1, "no run 'abcdef'"),
    (("trian",), 2, "train"),
    (("evaluate",), 1, "train one with"),
    (("evaluate", "nonsense"), 1, "no run 'nonsense'"),
    (("evaluate", "a-file"), 1, "is a file"),
    (("evaluate", "full"), 1, "no detector.json"),
    (("evaluate", "--target-fpr", "much"), 2, "much"),
    (("evaluate", "--target-fpr", "5e-324"), 2, "target_fpr"),
    (("evaluate", "~nobody-of-this-name/x"), 2, "does not exist"),
    (("train", "--resume", "latest", "--no-tracking"), 2, "--no-tracking"),
    (("ui", "--port", "99999999"), 2, "port"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_wrong_use_is_one_line_and_leaves_nothing_behind(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (code, "")
    *stages, error = ended.err.splitlines()  # what it was at, if it came so far
    assert error.startswith("error: ")
    assert said in error
    assert not any("error" in stage or "Traceback" in stage for stage in stages)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_version_is_said(cli: Cli) -> None:
    assert cli("--version").out == f"{__version__}\n"


def test_the_help_of_train_names_every_setting(cli: Cli) -> None:
    said = re.findall(r"[\w-]+", cli("train", "--help").out)
    assert {
        name for name in TYPES if name not in said and f"--{FLAGS.get(name, name).replace('_', '-')}" not in said
    } == set()


def test_without_a_command_it_shows_its_help(cli: Cli) -> None:
    ended = cli()
    assert (ended.code, ended.err) == (0, "")
    assert "evaluate" in ended.out


@pytest.mark.parametrize("command", ["datasets", "scorers"])
def test_catalogues_can_be_listed(cli: Cli, command: str) -> None:
    plain, as_json = cli(command), json.loads(cli(command, "--json").out)
    assert as_json
    for name, about in as_json.items():
        assert name in plain.out
        assert about in plain.out


def test_autoencoders_are_listed_with_their_sizes(cli: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("autoencoders", "--json").out)["autoencoders"]}
    bottleneck = rows["dense-bottleneck-64"]
    assert (bottleneck["encoder_parameters"], bottleneck["decoder_parameters"]) == (219_584, 259_521)
    assert bottleneck["latent_shape"] == [64]
    plain = cli("autoencoders", "--image-size", "32", "--channels", "3")
    assert plain.code == 0
    assert "3×32×32" in plain.out
    assert "219,584" not in plain.out
    assert plain.err == (
        "left out: autoencoder wide-kernel takes images of 28×28 pixels, and 32×32 was asked; "
        "leave --image-size out, and they are resized\n"
    )


def test_one_autoencoder_is_shown_layer_by_layer(cli: Cli) -> None:
    ended = cli("autoencoders", "dense-bottleneck-64")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["encoder", "Linear", "64", "200,768"] in rows
    assert ended.out.splitlines()[-1] == "parameters: encoder 219,584 + decoder 259,521 = 479,105"
    layers = json.loads(cli("autoencoders", "dense-bottleneck-64", "--json").out)["layers"]
    assert sum(layer["parameters"] for layer in layers) == 479_105
    assert "did you mean 'deep-cnn'" in cli("autoencoders", "deep").err


def test_evaluate_prints_a_table_or_one_json_object(cli: Cli, trained: Trained) -> None:
    place = ("--mlruns", str(trained.home.root))
    ended = cli("evaluate", *place, "--json")
    evaluation = json.loads(ended.out)
    assert evaluation["auroc"] == trained.evaluation.auroc
    assert evaluation["run_id"] == trained.run.record.id
    table = cli("evaluate", trained.run.record.id[:8], *place, "--target-fpr", "0.1").out
    for part in ("AUROC", "95 % interval", "FPR@95TPR", "0.1 (marginal)", "novel", f"{evaluation['auroc']:.4f}"):
        assert part in table


def test_runs_are_listed(cli: Cli, trained: Trained) -> None:
    assert "no runs; train with" in cli("runs").out
    ended = cli("runs", "--mlruns", str(trained.home.root), "--json")
    records = {run["run_id"]: run for run in json.loads(ended.out)["runs"]}
    assert records[trained.run.record.id]["status"] == "FINISHED"


def test_runs_are_filtered_and_sorted(cli: Cli, trained: Trained) -> None:
    place = ("--mlruns", str(trained.home.root))
    lines = cli("runs", "--filter", "autoencoder=conv", "--sort", "auroc", *place).out.splitlines()
    assert lines[0].split()[:4] == ["run", "started", "status", "name"]
    assert f"{trained.evaluation.auroc:.4f}" in next(line for line in lines if trained.run.record.id[:8] in line)
    assert "runs is like that" in cli("runs", "--filter", "autoencoder=vae", *place).out
    assert cli("runs", "--filter", "epochs=many", *place).code == 2
    assert "known: started, name" in cli("runs", "--sort", "size", *place).err


def test_a_run_is_promoted_and_exported_by_its_new_name(cli: Cli, home: RunStore, tmp_path: Path) -> None:
    run_id = train(RunConfig(normal="0", epochs=1, scorer="mse"), home=home).run_id
    place = ("--mlruns", str(home.root))
    promoted = cli("promote", run_id[:8], "--as", "challenger", *place)
    assert "models:/digits@challenger" in promoted.out
    file = tmp_path / "detector.onnx"
    exported = cli("export", "models:/digits@challenger", "--format", "onnx", "--output", str(file), *place)
    assert "heat_map: float32 (N, 8, 8)" in exported.out
    assert "against PyTorch" in exported.out
    assert file.stat().st_size > 10_000
    assert "known: onnx" in cli("export", "--format", "coreml", "--output", str(file), *place).err


def test_train_as_a_user_calls_it(cli: Cli, cli_process: Cli, tmp_path: Path) -> None:
    """In a process of its own, settings from a file, a flag that wins, and a saved copy."""
    (tmp_path / "run.yaml").write_text("normal: all-but:7\nepochs: 9\nlatent: 6\n")
    ended = cli_process("train", "--config", "run.yaml", "--epochs", "3", "--save-to", "copy", "--json")
    result = ended.json()
    wanted = "run_id, epochs, train_seconds, images_per_second, final_loss, validation_loss, parameters"
    assert set(wanted.split(", ")) <= result.keys()
    assert result["epochs"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "mlruns", "run.yaml"]
    config = json.loads((tmp_path / "mlruns" / "runs" / result["run_id"] / "config.json").read_text())
    assert (config["normal"], config["latent"], config["epochs"]) == ("all-but:7", 6, 3)
    assert "epoch 3/3" in ended.err  # progress goes to standard error, in plain lines
    assert "\x1b" not in ended.err
    assert cli("evaluate", "copy", "--json").json()["normal"] == list("012345689")


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "datasets"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mlruns").mkdir(mode=0o500)
    ended = cli("train", "--normal", "0", "--epochs", "1", "--no-tracking")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: cannot")


def test_what_nothing_else_expects_of_the_system_is_one_line_with_what_to_do(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "a/lock")

    monkeypatch.setattr("anomaly_ae.cli.catalogue_commands.show_values", refuse)
    ended = cli("scorers")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "error: Permission denied: a/lock; see to its permissions or name another one\n"


def test_a_full_disk_ends_the_run_as_failed_with_one_line(cli_process: Cli, tmp_path: Path) -> None:
    """A real refusal by the system: no file of the process may grow beyond what one checkpoint needs."""
    import resource

    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (40_000, 40_000))
    ended = cli_process("train", "--normal", "0,1,2", "--epochs", "2", "--no-tracking", preexec_fn=limit)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: cannot write")
    assert "File too large" in ended.err
    (run,) = (tmp_path / "mlruns" / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "FAILED"
    assert [path for path in run.rglob("*") if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("redirected", "code"),
    [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("2>&- >/dev/full", 1), ("| true; exit ${PIPESTATUS[0]}", None)],
)
def test_standard_streams_may_be_closed(tmp_path: Path, redirected: str, code: int | None) -> None:
    command = f"{sys.executable} -m anomaly_ae scorers {redirected}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=clean_environment(), capture_output=True, check=False
    )
    assert done.returncode in ((0, 1) if code is None else (code,))
    assert b"Traceback" not in done.stderr
    assert (b"mse" in done.stdout) == (redirected == "2>&-")


def test_a_terminal_without_letters_beyond_ascii_gets_escapes(tmp_path: Path) -> None:
    environment = clean_environment() | {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "anomaly_ae", "evaluate", "größe"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]  # on a slow machine after a word on what takes long
    assert last.startswith(b"error: ")
    assert rb"gr\xf6\xdfe" in last


@pytest.mark.parametrize(
    ("kind", "loaded"),
    [
        ("autoencoder", AUTOENCODERS),
        ("scorer", SCORERS),
        ("objective", OBJECTIVES),
        ("augmentation", AUGMENTATIONS),
        ("data set", DATASETS),
    ],
)
def test_names_are_known_without_loading_what_has_them(kind: str, loaded: dict[str, Any]) -> None:
    assert catalogue(kind) == {name: getattr(entry, "about", "") for name, entry in loaded.items()}


def test_wrong_names_are_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("autoencoder: convv\n")
    code = (
        "import sys\nfrom anomaly_ae.cli import main\n"
        "for words in sys.argv[1:]:\n  sys.argv = ['anomaly-ae', *words.split()]\n"
        "  try: main()\n  except SystemExit as end: assert end.code == 2\nassert 'torch' not in sys.modules"
    )
    wrong = {
        "train --normal 0 --scorer mse+pcaa": "did you mean 'pca'",
        "train --normal 0 --objective 0.5*ssmi+mse": "did you mean 'ssim'",
        "train --normal 0 --dataset MNIST": "did you mean 'mnist'",
        "train --normal 0 --augment flip": "did you mean 'flips'",
        "train --normal 0 --set dataset=mnits": "did you mean 'mnist'",
        "train --config run.yaml": "did you mean 'conv'",
        "train --normal 0 --preset fsat": "fast",
        "evaluate --compare-scorers pca,msee": "did you mean 'mse'",
        "evaluate --guarantee tial": "did you mean 'tail'",
        "evaluate --dataset dijits": "did you mean 'digits'",
        "calibrate --device cdua": "did you mean 'cuda'",
        "score . --engine rya": "did you mean 'ray'",
        "autoencoders vanila": "did you mean 'vanilla'",
        "export --format onxx --output x": "did you mean 'onnx'",
    }
    command = [sys.executable, "-c", code, *wrong]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (words, said), line in zip(wrong.items(), done.stderr.splitlines(), strict=True):
        assert said in line, words


def test_the_shell_completes_names(tmp_path: Path) -> None:
    asked = {
        "anomaly-ae tra": "train",
        "anomaly-ae train --autoencoder van": "vanilla",
        "anomaly-ae train --scorer mse+lat": "mse+latent-knn",
        "anomaly-ae evaluate --dataset fash": "fashion-mnist",
        "anomaly-ae autoencoders deep": "deep-cnn",
    }
    for words, whole in asked.items():
        told = {
            "_ANOMALY_AE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        script = "import sys; sys.argv = ['anomaly-ae']\nfrom anomaly_ae.cli import main\nmain()"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=clean_environment() | told, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [whole], done.stderr


@pytest.mark.parametrize("command", ["datasets", "scorers", "autoencoders", "autoencoders conv", "runs"])
def test_json_is_one_object(cli: Cli, command: str) -> None:
    ended = cli(*command.split(), "--json")
    assert isinstance(ended.json(), dict)
    assert ended.err == ""


def test_results_print_in_python_as_the_command_line_shows_them(cli: Cli, trained: Trained) -> None:
    shown = cli("evaluate", trained.run.record.id, "--mlruns", str(trained.home.root), "--target-fpr", "0.1").out
    evaluation = evaluate(trained.run.record.id, target_fpr=0.1, home=trained.home)
    assert f"{evaluation}\n" == shown
    assert str(trained.result).startswith("run  ")
    assert repr(evaluation).startswith("Evaluation(run_id=")
    assert DisplayFormatter().format(evaluation)[0] == {"text/plain": str(evaluation)}  # what a notebook shows


def test_a_setting_given_as_a_flag_that_it_has_not_is_told_how_it_is_given(cli: Cli) -> None:
    ended = cli("train", "--top-fraction", "0.1")
    assert ended.code == 2
    assert "give it with --set top_fraction=VALUE" in ended.err


def test_a_run_named_in_place_of_the_folder_is_told_apart(cli: Cli, trained: Trained) -> None:
    place = ("--mlruns", str(trained.home.root))
    ended = cli("score", trained.run.record.id, *place)
    assert f"{trained.run.record.id} is the run" in ended.err
    assert f"score FOLDER --model {trained.run.record.id}" in ended.err
    assert "there is no folder" in cli("score", "folder", *place).err
