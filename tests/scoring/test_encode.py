import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anomaly_ae.autoencoders import inference
from anomaly_ae.datasets.builtin import load_dataset
from anomaly_ae.errors import DataError, DataMissing, UsageError
from anomaly_ae.scoring.encode import encode_folder
from tests.conftest import Cli, Trained


def test_every_file_is_a_row_with_its_latent_or_an_error(
    trained: Trained, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "BATCH_IMAGES", 8)  # 21 files are three batches
    detector = trained.detector()
    done = encode_folder(detector, pictures, tmp_path / "latents.parquet")
    assert (done.images, done.errors, done.latent_size) == (21, 1, 12)
    table = pd.read_parquet(tmp_path / "latents.parquet").set_index("path")
    assert list(table.columns) == ["error", *(f"latent_{i}" for i in range(12))]
    assert "cannot be read" in table.loc["bad.png", "error"]
    assert table.loc["bad.png"][1:].isna().all()
    images = load_dataset("digits").files["train"].images[:20]
    names = [f"{'sub/' if i % 2 else ''}{i:02}.png" for i in range(20)]
    latents = table.loc[names].drop(columns="error").to_numpy(np.float32).copy()
    torch.testing.assert_close(torch.from_numpy(latents), detector.encode(images), rtol=1e-5, atol=1e-5)


def test_a_name_that_is_no_utf8_is_a_row_too(trained: Trained, pictures: Path, tmp_path: Path) -> None:
    (pictures / "00.png").rename(pictures / os.fsdecode(b"caf\xe9.png"))
    encode_folder(trained.detector(), pictures, tmp_path / "latents.parquet")
    assert r"caf\xe9.png" in set(pd.read_parquet(tmp_path / "latents.parquet").path)


def test_a_folder_without_one_good_image_leaves_nothing_behind(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataMissing, match="no image"):
        encode_folder(trained.detector(), tmp_path / "in", tmp_path / "l.parquet")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match="not one of 1 file in"):
        encode_folder(trained.detector(), tmp_path / "in", tmp_path / "l.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_latents_are_parquet_and_nothing_else(trained: Trained, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="written as Parquet"):
        encode_folder(trained.detector(), pictures, tmp_path / "latents.csv")


def test_from_the_command_line(cli: Cli, trained: Trained, pictures: Path, tmp_path: Path) -> None:
    place = ("--mlruns", str(trained.home.root))
    ended = cli("encode", str(pictures), "--output", "latents.parquet", *place, "--json")
    assert ended.json()["images"] == 21
    assert len(pd.read_parquet(tmp_path / "latents.parquet")) == 21
