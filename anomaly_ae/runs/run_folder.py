"""The run folder, `mlruns/runs/<run id>/`: what a training writes first.

run.json                state: RUNNING, FINISHED, KILLED or FAILED, and what MLflow lacks
config.json             the `RunConfig`
split.json              the data's digest, how many images went where, and their digests
metrics.csv             losses, learning rate and speed by epoch
checkpoint.safetensors  the last epoch's state
detector/               the finished detector
network/                encoder, decoder and the whole network, each in a file of its own
evaluation/             what `evaluate` measured
figures/  images/       what `train` and `evaluate` drew
comparisons/            what `compare` found, where this run was named first
example.png             a normal image, as an example of what the detector takes

The folder of a run of a pipeline file holds run.json, pipeline.json, tables and figures; the runs of its cells have
folders of their own, and name it as their parent.
"""

import csv
import dataclasses
import os
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import ModelError, RunBusy, StorageError, UsageError, one_line
from anomaly_ae.runs.location import place_settings
from anomaly_ae.runs.record import FINISHED, PIPELINE, RUNNING, RunRecord
from anomaly_ae.runs.run_results import KeptEvaluation, KeptResult
from anomaly_ae.runtime.printed import from_dict
from anomaly_ae.runtime.renamed import with_current_names
from anomaly_ae.runtime.spelling import command
from anomaly_ae.storage.atomic import flush, storage_errors, sweep, write_csv, write_json
from anomaly_ae.storage.schema import Count, Mismatch, Name, parse, read_json

if TYPE_CHECKING:
    from anomaly_ae.training import Epoch

EVALUATION = "evaluation/metrics.json"
MOST_RECORD = 2**30  # bytes of a file of JSON; that of the split has a line for each of a million pictures and more
EXAMPLE, CALIBRATION_SCORES, FIGURES = "example.png", "calibration.csv", "figures"
# What is read of a run's JSON, and must be that; there may be more
JSON_FIELDS: dict[str, dict[str, Any]] = {
    "pipeline.json": {"name": Name, "experiment": Name, "digest": str, "command": str, "cells": dict[str, Any]},
    "result.json": typing.get_type_hints(KeptResult, include_extras=True),
    EVALUATION: typing.get_type_hints(KeptEvaluation, include_extras=True),
}


@dataclass(frozen=True)
class RunFolder:
    """One run on disk."""

    path: Path

    def write_start(self, config: RunConfig, split: dict[str, Any]) -> None:
        """Write what is known before training: settings and split record."""
        write_json(self.path / "config.json", config.to_dict())
        write_json(self.path / "split.json", split)

    @property
    def record(self) -> RunRecord:
        """State as it is on disk now. Raises `ModelError` when it cannot be read."""
        fields = dataclasses.fields(RunRecord)
        defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
        content = self._read("run.json") | {"id": self.path.name}
        kept = {field.name: content[field.name] for field in fields if field.name in content}
        try:
            return parse(RunRecord, defaults | kept, "record")
        except Mismatch as error:
            raise ModelError(f"{self.path / 'run.json'} is damaged ({error})") from error

    def write_record(self, record: RunRecord) -> None:
        """Replace the state."""
        write_json(self.path / "run.json", dataclasses.asdict(record))

    def update(self, **changes: Any) -> None:
        """Change some of the state."""
        self.write_record(dataclasses.replace(self.record, **changes))

    def renamed(self, mlflow_run_id: str) -> "RunFolder":
        """The same run, called as it is in MLflow from now on. Raises `StorageError`."""
        self.update(mlflow_run_id=mlflow_run_id)  # where a kill leaves it at that, both know it by another name
        return self.named(mlflow_run_id)

    def named(self, name: str) -> "RunFolder":
        """The same run in a folder of that name from now on. Raises `StorageError`."""
        new = RunFolder(self.path.with_name(name))
        with storage_errors(f"write {new.path}"):
            self.path.rename(new.path)
            flush(new.path.parent)
        return new

    @property
    def config(self) -> RunConfig:
        """The settings it was started with. Raises `ModelError` when they cannot be read."""
        content = self._read("config.json")
        try:
            return RunConfig.build(with_current_names(content))
        except UsageError as error:
            what = f"damaged or of another version ({one_line(error)})"
            raise ModelError(f"{self.path / 'config.json'} is {what}; train anew") from error

    @property
    def split(self) -> dict[str, Any]:
        """The split record. Raises `ModelError` when it cannot be read."""
        content = self._read("split.json")
        try:
            parse(str, content.get("digest"), "its digest")
            for part in parse(dict[str, dict[str, Any]], content.get("parts"), "its parts").values():
                parse(Count, part.get("images"), "its images")
        except Mismatch as error:
            raise ModelError(f"{self.path / 'split.json'} is damaged ({error}); train anew") from error
        return content

    @property
    def experiment(self) -> str:
        """The MLflow experiment that it belongs to."""
        is_pipeline = self.record.kind == PIPELINE
        return str(self.read("pipeline.json")["experiment"]) if is_pipeline else self.config.experiment

    def data_dir(self) -> str | None:
        """Where it found its data, if they may still be there."""
        folder = self.config.data_dir
        return folder if folder and Path(folder).is_dir() else None

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object among its files, empty where there is none. Raises `ModelError` when it is damaged."""
        if not os.path.lexists(self.path / name):
            return {}
        content = self._read(name)
        try:
            for key, kind in JSON_FIELDS.get(name, {}).items():
                parse(kind, content.get(key), key)
        except Mismatch as error:
            raise ModelError(f"{self.path / name} is damaged ({error}); evaluate or train anew") from error
        return content

    def result(self) -> KeptResult:
        """What it came to, as far as it has. Raises `ModelError` when that is damaged."""
        return from_dict(KeptResult, self.read("result.json"))

    def evaluation(self) -> KeptEvaluation | None:
        """What was measured on its own test images, if that was. Raises `ModelError` when it is damaged."""
        content = self.read(EVALUATION)
        return from_dict(KeptEvaluation, content) if content else None

    def _read(self, name: str) -> dict[str, Any]:
        """A JSON object among its files. Raises `ModelError` when it is none."""
        try:
            return parse(dict[str, Any], read_json(self.path / name, MOST_RECORD))
        except OSError as error:
            raise ModelError(f"{self.path / name} cannot be read ({error.strerror})") from error
        except Mismatch as error:
            raise ModelError(f"{self.path / name} is damaged ({error})") from error

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def resume(self) -> str:
        """The command that goes on with this run."""
        return self.record.resume or self.command("train", resume=self.record.id)

    def command(self, *words: str, **settings: Any) -> str:
        """A command with what it needs to find the runs that are where this one is."""
        return command(*words, **settings, **place_settings(self.path.parent.parent))

    def next_commands(self) -> list[str]:
        """What one may want to do with it when it is finished."""
        name = self.path.name[:8]
        page = [self.command("ui")] if self.record.tracked else []
        return [self.command("evaluate", name), self.command("score", "FOLDER", model=name), *page]

    def detector_folder(self) -> Path:
        """Where its detector is. Raises `ModelError` when the training is not finished."""
        status = self.record.status
        if self.record.kind == PIPELINE:
            raise ModelError(
                f"run {self.record.id} is that of a pipeline file; name one of its cells: {self.command('runs')}"
            )
        if status == FINISHED:
            return self.path / "detector"
        if status == RUNNING and self.is_locked():
            raise ModelError(
                f"run {self.record.id} is still training and has no threshold yet; wait until it is done"
            )
        raise ModelError(f"run {self.record.id} was interrupted and has no threshold; resume it with: {self.resume}")

    def write_history(self, history: "Sequence[Epoch]") -> None:
        """Write metrics.csv anew."""
        write_csv(self.path / "metrics.csv", [dataclasses.asdict(epoch) for epoch in history])

    def history(self) -> "list[Epoch]":
        """The epochs in metrics.csv. Raises `ModelError` when it is damaged."""
        from anomaly_ae.training import Epoch  # here, so that listing runs needs no torch

        path = self.path / "metrics.csv"
        if not path.exists():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
            return [parse(Epoch, row | {"epoch": int(row["epoch"])}) for row in rows]
        except (OSError, csv.Error, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path} is damaged; train anew") from error

    def grid(self, epoch: int) -> Path:
        """Where the reconstruction grid after that epoch lies, if one was drawn; epoch 0 is before training."""
        return self.path / "images" / f"epoch-{epoch:05}.png"

    def grids(self) -> list[Path]:
        """The reconstruction grids, by epoch."""
        numbers = {path: path.stem.removeprefix("epoch-") for path in (self.path / "images").glob("epoch-*.png")}
        return sorted((path for path in numbers if numbers[path].isdecimal()), key=lambda path: int(numbers[path]))

    @contextmanager
    def lock(self, wait: float = 0) -> Iterator[None]:
        """Hold the run; the system lets go of it when the process ends, however it ends.

        What writers that were killed have left in its folder is removed. Raises `RunBusy` when another process still
        holds it after `wait` seconds, `ModelError` when it is gone.
        """
        lock = FileLock(self.path / "run.lock", timeout=wait)
        if not self.path.is_dir():
            raise ModelError(f"there is no {self.path} any more")
        with storage_errors(f"write to {self.path}"):
            try:
                lock.acquire()
            except Timeout as error:
                raise RunBusy(
                    f"run {self.path.name} is in another process's hands; wait for it or stop it"
                ) from error
        try:
            sweep(self.path)
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a living process holds the run, or might, since that cannot be told."""
        try:
            with self.lock():
                return False
        except (RunBusy, ModelError, StorageError):
            return True


def conflicts(recorded: RunConfig, requested: RunConfig) -> list[str]:
    """Where a resumed run was asked for something else than it was started with; data may have moved."""
    from anomaly_ae.datasets.builtin import DATASETS  # here, for listing runs needs no torch

    before, after = recorded.to_dict(), requested.to_dict()
    moved = {"data_dir"} if recorded.dataset in DATASETS or requested.dataset in DATASETS else {"data_dir", "dataset"}
    return [
        f"{key} is {before[key]} and {after[key]} was asked"
        for key in before
        if key not in moved and before[key] != after[key]
    ]
