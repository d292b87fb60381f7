"""Detectors that were damaged or tampered with so that their digests are right again."""

import dataclasses
import json
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from anomaly_ae import AnomalyAEError
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.datasets.splitting import split_dataset
from anomaly_ae.detector.detector import Detector
from anomaly_ae.detector.experiment import Experiment
from anomaly_ae.detector.fit import make_detector
from anomaly_ae.detector.serialization import digest_of
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.storage.atomic import sha256

Place = tuple[str | int, ...]
ODD: tuple[Any, ...] = (None, -1, 0, 10**30, 1e300, True, "", "x", "\ud800", [], [0.5], {}, {"a": [1]})


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Save a detector of digits with a scorer, that no epoch was trained: as quick as can be."""

    def made(scorer: str, named: bool = False, **calibration: Any) -> Path:
        dataset = load_dataset("digits")
        file = dataset.files["train"].take(torch.arange(500))
        if named:  # as pictures in a folder are
            file = dataclasses.replace(file, names=tuple(b"%d.png" % i for i in range(len(file))))
        dataset = dataclasses.replace(dataset, files={"train": file})
        config = RunConfig(autoencoder="conv", scorer=scorer, device="cpu")
        split = split_dataset(dataset, range(6), seed=0)
        images = {part: getattr(split, part).take(dataset) for part in ("fit", "validation", "calibration")}
        seen = Preprocessing(*dataset.shape)
        experiment = Experiment.build(config, seen, dataset.classes, ("0", "1", "2", "3", "4", "5"))
        detector = make_detector(experiment, experiment.network, images, split)
        other = detector.calibration.at(**calibration) if calibration else detector.calibration
        folder = tmp_path_factory.mktemp("saved") / "detector"
        dataclasses.replace(detector, calibration=other).save(folder)
        return folder

    return made


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about = json.loads((folder / "detector.json").read_text())
    del about["sha256"]
    return about, load_file(folder / "weights.safetensors")


def write(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Both files with digests that are right; that of the weights."""
    content = save({name: value.contiguous() for name, value in tensors.items()})
    folder.mkdir(exist_ok=True)
    (folder / "weights.safetensors").write_bytes(content)
    digest = sha256(content)
    write_about(folder, about, digest)
    return digest


def write_about(folder: Path, about: dict[str, Any], weights: str) -> None:
    """What is said beside weights of this digest."""
    if "weights_sha256" in about:
        about = about | {"weights_sha256": weights}
    (folder / "detector.json").write_text(json.dumps(about | {"sha256": digest_of(about)}))


def use(folder: Path) -> None:
    """Load it and ask it everything. Only errors of ours may come."""
    detector = Detector.load(folder)
    images = torch.zeros(2, *detector.preprocessing.shape)
    scores = detector.score(images)
    assert bool(torch.isfinite(scores).all())
    assert bool(((detector.p_values(scores) > 0) & (detector.p_values(scores) <= 1)).all())
    detector.drift(scores.repeat(50))
    detector.differences(images)
    maps = detector.anomaly_map(images)
    assert maps is None or bool(torch.isfinite(maps).all())
    assert detector.decode(detector.encode(images)).shape == images.shape
    assert repr(detector)
    detector.split.known(detector.split.fit.hashes)


def outcome(folder: Path) -> str:
    try:
        use(folder)
    except AnomalyAEError as error:
        return type(error).__name__ if "\n" not in str(error) else "several lines"
    return "works"


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Where there is something in plain JSON, mappings and lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*above, key)
        yield from places(each, (*above, key))


def changed(about: dict[str, Any], place: Place, change: Callable[[Any, str | int], object]) -> dict[str, Any]:
    copy = json.loads(json.dumps(about))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    change(inner, place[-1])
    return dict(copy)


def check_fields(folder: Path, other: Path, within: Place = ()) -> int:
    """Change every field below `within`; how many were refused."""
    about, tensors = read(folder)
    weights, refused = write(other, about, tensors), 0
    for place in places(about):
        variants = [changed(about, place, lambda inner, key: inner.pop(key))]
        variants += [changed(about, place, lambda inner, key, odd=odd: inner.__setitem__(key, odd)) for odd in ODD]
        for variant in variants if place[: len(within)] == within else []:
            write_about(other, variant, weights)
            ended = outcome(other)
            assert ended in ("works", "DetectorDamaged"), (place, ended)
            refused += ended == "DetectorDamaged"
    return refused


def test_every_field_that_is_changed_is_refused_or_does_no_harm(make: Make, tmp_path: Path) -> None:
    folder = make("relative+latent-knn", named=True)
    about, tensors = read(folder)
    write(tmp_path / "same", about, tensors)
    assert outcome(tmp_path / "same") == "works"
    assert check_fields(folder, tmp_path / "other") > 600


@pytest.mark.parametrize("guarantee", ["tail", "conditional"])
def test_every_field_of_a_calibration(make: Make, tmp_path: Path, guarantee: str) -> None:
    folder = make("mse", guarantee=guarantee)
    assert outcome(folder) == "works"
    assert check_fields(folder, tmp_path / "other", within=("calibration",)) > 60


def in_groups(make: Make, guarantee: str = "marginal") -> Path:
    """A detector whose calibration scores are of two groups, the smaller one with scores twice as high."""
    scores = torch.rand(120, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(120) % 3 // 2
    return make("mse", scores=scores * (1 + groups), groups=groups, guarantee=guarantee)


@pytest.mark.parametrize("guarantee", ["marginal", "tail"])
def test_groups_of_calibration_scores_are_kept(make: Make, tmp_path: Path, guarantee: str) -> None:
    folder = in_groups(make, guarantee)
    about, _ = read(folder)
    assert (about["calibration"]["groups"], len(about["calibration"]["tails"])) == (2, 2 * (guarantee == "tail"))
    detector = Detector.load(folder)
    assert [len(group) for group in detector.calibration.by_group] == [80, 40]
    detector.save(tmp_path / "again")
    assert Detector.load(tmp_path / "again").digest == detector.digest
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()
    assert check_fields(folder, tmp_path / "other", within=("calibration",)) > 60


def test_groups_that_are_not_those_of_the_scores_are_refused(make: Make, tmp_path: Path) -> None:
    about, tensors = read(in_groups(make))
    groups = tensors["calibration.groups"]
    write(tmp_path / "other", about, tensors)
    assert outcome(tmp_path / "other") == "works"
    for other in (
        *(groups + 1, groups - 1, groups * 0, 1 - groups, groups.flip(0), groups[:-1], groups.float()),
        *(groups.to(torch.uint8), groups[None], groups * 10**12),
    ):
        write(tmp_path / "other", about, tensors | {"calibration.groups": other})
        # numbered the other way round they are the same groups
        expected = "works" if torch.equal(other, 1 - groups) else "DetectorDamaged"
        assert outcome(tmp_path / "other") == expected, other
    for count in (1, 3, 120, 121, 2**62):
        write(
            tmp_path / "other",
            changed(about, ("calibration", "groups"), lambda i, k, n=count: i.update({k: n})),
            tensors,
        )
        assert outcome(tmp_path / "other") == "DetectorDamaged", count
    write(tmp_path / "other", about, {name: value for name, value in tensors.items() if name != "calibration.groups"})
    assert outcome(tmp_path / "other") == "DetectorDamaged"


@pytest.mark.parametrize(
    ("scorer", "within"),
    [
        ("aligned-knn+patch-knn+pixel-knn", ""),
        ("pca+one-class-svm+feature-knn", "scorer."),  # the other tensors are the same
        ("isolation-forest", "scorer."),
    ],
)
def test_every_tensor_that_is_changed_is_refused(make: Make, tmp_path: Path, scorer: str, within: str) -> None:
    about, tensors = read(make(scorer, named=True))
    write(tmp_path / "other", about, tensors)
    assert outcome(tmp_path / "other") == "works"
    for name, value in ((name, value) for name, value in tensors.items() if name.startswith(within)):
        others: list[Tensor | None] = [None, value.unsqueeze(0), torch.cat([value.flatten(), value.flatten()])]
        others += [value[:0] if value.ndim else value.reshape(1), value.to(torch.int32)]
        if value.is_floating_point():
            others += [torch.full_like(value, torch.nan), torch.full_like(value, torch.inf)]
        if name in ("split.fit", "split.test"):
            others += [value - 10_000, value.clamp(max=int(value[1])), torch.full_like(value, 7)]
        if name.removeprefix("scorer.") in ("pixel", "left", "right", "roots"):  # of a forest
            others += [value - 1_000_000, value + 1_000_000]
        for other in others:
            if other is None and name == "calibration.names":
                continue  # there may be none
            variant = {key: each for key, each in tensors.items() if key != name}
            write(tmp_path / "other", about, variant if other is None else variant | {name: other})
            assert outcome(tmp_path / "other") == "DetectorDamaged", (name, other)
    write(tmp_path / "other", about, tensors | {"scorer.more": torch.zeros(1)})
    assert outcome(tmp_path / "other") == "DetectorDamaged"


CLAIMS: list[dict[str, Any]] = [
    {"config": {"latent": 3_000_000}},
    {"config": {"autoencoder": "vanilla", "latent": 2**24}},
    {"config": {"autoencoder": "shallow-cnn"}, "preprocessing": {"height": 2**13, "width": 2**13}},
    {"preprocessing": {"height": 2**24, "width": 2**24}},
    {"preprocessing": {"channels": 2**20}},
    {"config": {"tile": "8x8"}, "preprocessing": {"height": 2**13, "width": 2**13}},
    {"config": {"scorer": "+".join(["mse"] * 1_000)}},
    {"calibration": {"images": 2**62}},
    {"split": {"fit": {"images": 2**62}}},
]


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_what_is_claimed_is_checked_before_memory_is_taken(make: Make, tmp_path: Path, claim: dict[str, Any]) -> None:
    about, tensors = read(make("latent-knn"))
    for part, values in claim.items():
        for key, value in values.items():
            about[part][key] = about[part][key] | value if isinstance(value, dict) else value
    write(tmp_path / "other", about, tensors)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert outcome(tmp_path / "other") == "DetectorDamaged"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 5, "format": 5}',
        '{"format": NaN}',
        '{"format": -Infinity}',
        '{"format": ' + "9" * 5_000 + "}",
        "[" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        '{"format": 5, "sha256": ' + "[" * 900 + "]" * 900 + "}",
        " " * (2**24 + 1),
        "\ufeff{}",
    ],
    ids=lambda text: f"{len(text)} {text[:20]}",
)
def test_json_that_is_made_to_do_harm(make: Make, tmp_path: Path, text: str) -> None:
    shutil.copytree(make("mse"), tmp_path / "other")
    (tmp_path / "other" / "detector.json").write_text(text)
    assert outcome(tmp_path / "other") == "DetectorDamaged"


def header(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


WEIGHTS = {
    "a header as long as memory": struct.pack("<Q", 2**63),
    "a header beyond the end": struct.pack("<Q", 100) + b"{}",
    "no header": b"",
    "no tensors": header({}),
    "too many bytes": header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}),
    "an overlap": header({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}) + b"\0" * 8,
    "another type": header({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}) + b"\0" * 4,
    "a shape below zero": header({"a": {"dtype": "U8", "shape": [-1, -4], "data_offsets": [0, 4]}}) + b"\0" * 4,
    "no list": header({"a": 5}),
    "a list": struct.pack("<Q", 2) + b"[]",
}


@pytest.mark.parametrize("content", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_are_made_to_do_harm(make: Make, tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "other"
    about, _ = read(make("mse"))
    write(folder, about, {})
    (folder / "weights.safetensors").write_bytes(content)
    about |= {"weights_sha256": sha256(content)}
    (folder / "detector.json").write_text(json.dumps(about | {"sha256": digest_of(about)}))
    assert outcome(folder) == "DetectorDamaged"


def test_only_regular_files_are_read_and_none_that_is_larger_than_its_header_says(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    for spoil in (
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: sparse(path, 2**40),
    ):
        shutil.copytree(make("mse"), folder)
        (folder / "weights.safetensors").unlink()
        spoil(folder / "weights.safetensors")
        assert outcome(folder) == "DetectorDamaged"
        shutil.rmtree(folder)
    shutil.copytree(make("mse"), folder)
    (folder / "detector.json").unlink()
    os.mkfifo(folder / "detector.json")
    assert outcome(folder) == "ModelNotFound"


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_a_home_folder_is_filled_in(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("mse")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert Detector.load(f"~/{folder.name}").config.scorer == "mse"
