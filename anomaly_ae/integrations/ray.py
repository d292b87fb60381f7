"""Scoring with Ray Data: the same function over the same batches, by as many processes as a cluster has CPUs for.

All machines of a cluster have anomaly-ae installed, and see the images and the folder of the output under the same
paths. Ray writes results into the ledger's folder and keeps a checkpoint of them; at the end they go into the shards,
and all that follows is the same as without Ray.
"""

import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from anomaly_ae.autoencoders.inference import batch_size
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import EngineError, UsageError, install_extra, one_line
from anomaly_ae.images.decode_worker import SECONDS
from anomaly_ae.images.listing import Listing, Source
from anomaly_ae.runtime.machine import usable_cores
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scoring.job import Engine, Job
from anomaly_ae.scoring.ledger import Ledger
from anomaly_ae.scoring.rows import RESULT, Positions, Results, read_batches, score_batch, split_by_batch
from anomaly_ae.storage.atomic import sha256

try:
    import ray
    from ray.data import ActorPoolStrategy, Datasource, ReadTask
    from ray.data.block import BlockMetadata
    from ray.data.checkpoint import CheckpointConfig
except ImportError as error:
    raise UsageError(f"{setting('engine', 'ray')} needs Ray 2.55 or later; {install_extra('ray')}") from error

PART_FILES = 256  # files at the most that an actor scores at a time
SPARE_CPUS = 2  # CPUs beside those of the actors, for Ray's own tasks: reading, filtering and writing parts
PATIENCE = PART_FILES * SECONDS  # the longest that a part can take: after it, if nothing else goes on, its actors die
PART_ID = "part"  # the column by which Ray's checkpoint tells parts
NAMES = RESULT.names or ()
STRINGS = [name for name in NAMES if RESULT[name].hasobject]  # or None

Files = dict[str, bytes]  # of a saved detector, by name


def ray_engine(address: str | None = None) -> Engine:
    """The engine that scores with Ray: on the cluster at an address, else on a Ray of its own on this machine."""
    return partial(_score, address)


class PartScorer:
    """An actor of Ray, which scores the files of one part after the other."""

    def __init__(self, detector: Any, source: Source, here: str) -> None:
        """detector: Ray's reference to `Files`; here: the folder in which relative paths of a source begin."""
        torch.set_num_threads(1)  # one CPU is what Ray has given
        with suppress(OSError):  # another machine may not have it
            os.chdir(here)
        self.detector = _load(ray.get(detector))
        self.decoders = self.detector.preprocessing.decoders(source, 1)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The results of a part, both as one row."""
        (part,) = table.to_pylist()
        listing = Listing(part["paths"], np.array(part["bytes"]), np.array(part["times"]))
        indices = np.array(part["indices"])
        batches = read_batches(self.decoders, self.detector, listing, indices)
        results = np.concatenate([score_batch(self.detector, listing, batch) for batch in batches])
        return _pack(part[PART_ID], part["start"] + indices, results)


class _Parts(Datasource):  # type: ignore[misc]  # Ray has no types
    """What is to be scored, each part a block, and so a task of its own."""

    def __init__(self, parts: list[pa.Table]) -> None:
        super().__init__()
        self.parts = parts

    def estimate_inmemory_data_size(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def get_read_tasks(self, *_: object, **__: object) -> list[ReadTask]:
        sizes = (BlockMetadata(1, part.nbytes, exec_stats=None, input_files=None) for part in self.parts)
        return [ReadTask(partial(list, [part]), size) for part, size in zip(self.parts, sizes, strict=True)]


def _score(address: str | None, job: Job, ledger: Ledger, listing: Listing) -> int:
    """Score what has no result yet; how many files that were."""
    wanted = np.concatenate([np.zeros(0, np.int64), *ledger.missing(listing)])
    if not len(wanted):
        return 0
    folder = ledger.folder.resolve() / "ray"
    before = set(folder.glob("rows/*"))  # of a job whose process was killed
    parts = list(_parts(listing, wanted, batch_size(*job.detector.preprocessing.shape[1:])))
    try:
        with _connected(address, job.workers) as room:
            _run(job, parts, folder, min(room, len(parts)))
    finally:  # what was done before Ctrl-C is kept too
        scored = _keep(ledger, listing, folder / "rows", before)
        shutil.rmtree(folder, ignore_errors=True)
    return scored


def _parts(listing: Listing, wanted: Positions, batch: int) -> Iterator[pa.Table]:
    """Rows of what is to be scored: the files of some whole batches, and the indices of those that are wanted.

    The number that tells it from other parts is another one when its files have changed.
    """
    size = PART_FILES // batch * batch
    for positions in split_by_batch(wanted, size):
        start = int(positions[0]) // size * size
        where = slice(start, start + size)
        sizes, times = listing.sizes[where], listing.times[where]
        number = int(sha256(positions.tobytes(), sizes.tobytes(), times.tobytes())[:15], 16)
        part = {PART_ID: number, "start": start, "indices": positions - start}
        yield pa.Table.from_pylist([part | {"paths": listing.paths[where], "bytes": sizes, "times": times}])


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[int]:
    """Ray for as long as it lasts, unless it is in use already; how many actors there is room for."""
    is_own = address is not None or not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # where Ray would tell of processes that were killed
        if is_own:
            _connect(address, workers)
        try:
            yield _room(workers)
        finally:
            if is_own:
                ray.shutdown()


def _connect(address: str | None, workers: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    settings = {} if address else {"num_cpus": (workers or usable_cores()) + SPARE_CPUS, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address or "")
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UsageError(f"there is no Ray at {address or 'this machine'}: {one_line(error)}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end the process at once


def _knock(address: str) -> None:
    """Raise `OSError` when nobody answers at HOST:PORT, where Ray would try for many minutes, deaf to Ctrl-C."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _room(workers: int | None) -> int:
    """How many actors there are to be. Raises `UsageError` when not one would leave Ray the CPUs it needs."""
    free = int(ray.available_resources().get("CPU", 0))
    if free <= SPARE_CPUS:
        raise UsageError(
            f"scoring needs {SPARE_CPUS + 1} free CPUs of a Ray cluster at the least, and there are {free}"
        )
    return min(workers or free, free - SPARE_CPUS)


def _run(job: Job, parts: list[pa.Table], folder: Path, actors: int) -> None:
    """Let Ray score the parts that its checkpoint does not have, and write their results."""
    tasks = ray.data.read_datasource(_Parts(parts), override_num_blocks=len(parts))
    tasks.context.enable_progress_bars = False
    tasks.context.raise_original_map_exception = True
    tasks.context.execution_no_progress_timeout_s = PATIENCE
    tasks.context.checkpoint_config = CheckpointConfig(
        PART_ID, str(folder / "done"), delete_checkpoint_on_success=False
    )
    results = tasks.map_batches(
        PartScorer,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(ray.put(_files(job.detector)), job.source, str(Path.cwd())),
        compute=ActorPoolStrategy(size=actors),
    )
    logger.info(f"scoring with Ray in {actors} process{'es' if actors > 1 else ''}")
    try:
        with _hushed():
            results.write_parquet(str(folder / "rows"))
    except Exception as error:  # it raises whatever it likes
        raise EngineError(
            f"Ray has given up ({_reason(error)}); the same command with {setting('resume', True)} goes on"
        ) from error


def _reason(error: Exception) -> str:
    """What was raised in an actor, as one line; Ray, where it speaks for itself, comes to the point in its last."""
    cause = getattr(error, "cause", None)
    dead = isinstance(error, ray.exceptions.RayError) and not cause
    return textwrap.shorten(str(error).strip().splitlines()[-1] if dead else one_line(cause or error), 200)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep off standard error what Ray's core writes there whatever its log level is."""
    aside, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(aside, 2)
        os.close(aside)
        os.close(nowhere)


def _files(detector: Detector) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        detector.save(Path(folder) / "detector")
        return {path.name: path.read_bytes() for path in (Path(folder) / "detector").iterdir()}


def _load(files: Files) -> Detector:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return Detector.load(folder, "cpu")


def _pack(number: int, positions: Positions, results: Results) -> pa.Table:
    """The results of a part as one row of lists, with a digest of them."""
    columns = {"position": positions} | {name: results[name] for name in NAMES}
    kinds = {name: pa.string() if name in STRINGS else pa.from_numpy_dtype(columns[name].dtype) for name in columns}
    lists = {name: pa.array([columns[name]], pa.list_(kinds[name])) for name in columns}
    return pa.table({PART_ID: [number], "digest": [_digest(positions, results)]} | lists)


def _unpack(path: Path) -> Iterator[tuple[Positions, Results]]:
    """Positions and results of each part in a file, without those that are damaged, as where Ray was ended."""
    try:
        table = pq.read_table(path)
    except (OSError, ValueError):
        return
    for i, digest in enumerate(table["digest"].to_pylist()):
        positions = table["position"][i].values.to_numpy()
        results = np.zeros(len(positions), RESULT)
        for name in NAMES:
            results[name] = table[name][i].values.to_numpy(zero_copy_only=False)
        if digest == _digest(positions, results):
            yield positions, results


def _digest(positions: Positions, results: Results) -> str:
    numbers = (results[name].tobytes() for name in NAMES if name not in STRINGS)
    return sha256(positions.tobytes(), *numbers, json.dumps([results[name].tolist() for name in STRINGS]).encode())


def _keep(ledger: Ledger, listing: Listing, folder: Path, before: set[Path]) -> int:
    """Put what Ray has written into the shards that lack it; how many results there are but for those in `before`."""
    results, is_done, count = np.zeros(len(listing), RESULT), np.zeros(len(listing), bool), 0
    for path in sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns):  # the latest counts
        for positions, part in _unpack(path):
            results[positions], is_done[positions] = part, True
            count += 0 if path in before else len(positions)
    for missing in ledger.missing(listing):
        where, done = ledger.around(int(missing[0]), listing), missing[is_done[missing]]
        shard = ledger.read_shard(where, listing)
        shard[done - where.start] = results[done]
        ledger.write_shard(where, listing, shard)
    return count
