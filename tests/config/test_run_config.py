from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_ae.config.run_config import TYPES, RunConfig, read_config
from anomaly_ae.errors import StorageError, UnknownName, UsageError
from anomaly_ae.storage.yaml_files import read_lines


def test_later_layers_win_and_strings_become_their_field_s_type() -> None:
    config = RunConfig.build(
        {"latent": 8, "normal": [0, 1, 2]}, {"latent": "16", "learning-rate": "1e-3"}, {"seed": 3}
    )
    assert (config.latent, config.learning_rate, config.seed, config.normal) == (16, 1e-3, 3, "0,1,2")


def test_a_config_survives_a_round_trip() -> None:
    config = RunConfig(normal="0-4", epochs=3, data_dir="somewhere")
    assert RunConfig.build(config.to_dict()) == config


def test_a_config_shows_what_was_said_and_can_be_made_of_it() -> None:
    config = RunConfig(normal=[0, 1], latent=8, image_size=28)
    assert repr(config) == "RunConfig(normal='0,1', image_size='28', latent=8)"
    assert eval(repr(config)) == config
    assert repr(RunConfig()) == "RunConfig()"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(target_fpr=-0.1, latent=0, device="gpu")
    for part in ("target_fpr", "-0.1", "latent", "device", "cuda"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("latent", "twelve"), ("latent", 1.5), ("target_fpr", "nan"), ("seed", True), ("seed", None), ("latent", [12])],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_name(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        RunConfig.build({key: value})


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        RunConfig.build({"learning_rat": 1})


def test_a_config_file_is_a_mapping_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("normal: 0,1,2\nlearning_rate: 0.002\nepochs: null\n")
    config = RunConfig.build(read_config(read_lines(file)))
    assert (config.normal, config.learning_rate, config.epochs) == ("0,1,2", 0.002, None)
    file.write_text("")
    assert read_config(read_lines(file)) == {}
    file.write_text("- a list\n")
    with pytest.raises(UsageError, match="key: value"):
        read_config(read_lines(file))
    file.write_text("a: [\n")
    with pytest.raises(UsageError, match="line 2: this is not valid YAML"):
        read_config(read_lines(file))


def test_settings_may_stand_under_their_parts(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  normal: [0, 1]\ntraining:\n  epochs: 3\nnetwork: {batch_norm: yes, dropout: 0.5}\n")
    config = RunConfig.build(read_config(read_lines(file)), {"training.epochs": "4"})
    assert (config.normal, config.epochs, config.batch_norm, config.dropout) == ("0,1", 4, True, 0.5)
    for text in ("data: {epochs: 3}\n", "training: {epoch: 3}\n"):
        file.write_text("normal: 0\n" + text)
        with pytest.raises(UsageError, match=r"run\.yaml, line 2: .*did you mean 'training\.epochs'"):
            read_config(read_lines(file))


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("64x48", (64, 48)), (None, None)])
def test_an_image_size_is_height_and_width(text: str | None, size: tuple[int, int] | None) -> None:
    assert RunConfig(image_size=text).size == size


@pytest.mark.parametrize("text", ["0", "64x", "x64", "64X48", "-3", "64x48x3", "a"])
def test_other_image_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="image_size must be pixels"):
        RunConfig(image_size=text)


def test_a_folder_where_a_config_file_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read the file"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    "text", ["010", "0x10", "1e3", "1_000", "12:30", "2024-01-01", "yes", "no", "on", "1.0", "True"]
)
def test_names_in_a_file_stay_what_stands_there(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    for line in (f"normal: {text}", f"normal: [{text}]", f"normal: '{text}'", f"data: {{normal: {text}}}"):
        file.write_text(f"{line}\n")
        assert RunConfig.build(read_config(read_lines(file))).normal == text


def test_a_class_may_be_called_none_and_nothing_is_no_class(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("normal: none\nlatent: none\n")
    config = RunConfig.build(read_config(read_lines(file)))
    assert (config.normal, config.latent) == ("none", None)
    for nothing in ("null", "~", ""):
        file.write_text(f"normal: {nothing}\n")
        with pytest.raises(UsageError, match=r"run\.yaml, line 1: normal needs a value"):
            read_config(read_lines(file))


@pytest.mark.parametrize(
    ("given", "converted"),
    [
        ({"epochs": "5"}, 5),
        ({"epochs": 5.0}, 5),
        ({"normal": [0, 1]}, "0,1"),
        ({"normal": (0, "two")}, "0,two"),
        ({"normal": range(3)}, "0,1,2"),
        ({"normal": np.arange(3)}, "0,1,2"),
        ({"seed": np.int64(3)}, 3),
        ({"target_fpr": np.float32(0.5)}, 0.5),
        ({"normal": 0}, "0"),
        ({"dataset": Path("tiles")}, "tiles"),
        ({"image_size": 64}, "64"),
        ({"image_size": (64, 48)}, "64x48"),
        ({"learning_rate": "1e-3"}, 0.001),
        ({"dropout": 0}, 0.0),
        ({"batch_norm": "yes"}, True),
        ({"scorer": ["mse", "pca"]}, "mse+pca"),
        ({"latent": "none"}, None),
    ],
)
def test_python_s_values_become_the_field_s_type(given: dict[str, Any], converted: object) -> None:
    value = getattr(RunConfig(**given), next(iter(given)))
    assert (value, type(value)) == (converted, type(converted))


ODD: list[Any] = [{}, {"a": 1}, [], [[]], True, object(), 1j, b"0", [None], [True], 10**5000]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
@pytest.mark.parametrize("name", sorted(set(TYPES) - {"batch_norm", "download"}))
def test_what_no_field_can_be_is_refused_in_words(name: str, odd: Any) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        RunConfig(**{name: odd})
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 8)}]\n" for i in range(20)),
        "a: &a [*a]\n",
        "a: &a {<<: *a}\n",
        "&a a: *a\nb: {<<: [*a]}\n",
        "a: &a {b: *a}\n",
        "a: " + "[" * 5_000 + "]" * 5_000,
        "a: " + "{b: " * 5_000 + "1" + "}" * 5_000,
        "a: [" + "1, " * 20_000 + "]\n",
        "a: " + "x" * 2_000_000,
        "a: !!python/object/apply:os.system ['true']\n",
        "a: !!binary aGVsbG8=\n",
        "? [a]\n: 1\n",
        "a: 1\n---\nb: 2\n",
        "a: \x00\n",
        "latent: " + "9" * 5_000,
    ],
)
def test_files_that_are_made_to_do_harm_are_refused_at_once(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(read_lines(file))
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 600
