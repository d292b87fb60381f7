"""The command line: parse, call, print."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from anomaly_ae import __version__, texts
from anomaly_ae.errors import AnomalyAEError, Interrupted, UsageError, one_line

app = typer.Typer(
    name="anomaly-ae",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

MNIST_SIZE = (28, 28)  # at which the autoencoders that take any size are listed
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output, and nothing else.")]
Mlruns = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where runs are kept [ANOMALY_AE_MLRUNS, MLFLOW_TRACKING_URI, ./mlruns]."),
]
DataDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where data sets lie [ANOMALY_AE_DATA_DIR, ./data].")
]
Model = Annotated[str, typer.Argument(metavar="[MODEL]", help="latest, a run id, or a saved detector's folder.")]
Guarantee = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="marginal, conditional, or tail, which extrapolates [its own]."),
]
Confidence = Annotated[float | None, typer.Option(metavar="F", help="Of the guarantee conditional [its own, 0.95].")]


@app.callback()
def without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train an autoencoder on images of what is normal, and know which new ones are not."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def train(
    normal: Annotated[
        str | None, typer.Option(metavar="CLASSES", help="Normal classes: 0,1,2 or 0-4 or all-but:7 or good.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="See: anomaly-ae datasets; or a folder of pictures [digits]."),
    ] = None,
    data_dir: DataDir = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="fast, default, or surface, for photos of things [default].")
    ] = None,
    autoencoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="See: anomaly-ae autoencoders [conv; repair for surface].")
    ] = None,
    latent: Annotated[
        str | None, typer.Option(metavar="N", help="Latent dimensions [the autoencoder's own; 12 for conv].")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Resize the images [as the autoencoder or the data have it].")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="NAME", help="Other proportions: stretch, pad or crop [stretch].")
    ] = None,
    tile: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="See large images in overlapping tiles [images whole].")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What stays normal: as-is, mirror, flips, turns, light, or e.g. flips+light."
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="mse, bce, ssim, elbo, repair, perceptual, or e.g. mse+0.5*ssim [its own]."
        ),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="NAME", help="See: anomaly-ae scorers [the preset's own].")
    ] = None,
    target_fpr: Annotated[str | None, typer.Option(metavar="F", help="False-alarm rate to hold [0.05].")] = None,
    trim_training: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Leave out the share of the training images that fits worst [0]."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Epochs [as many as the data need].")] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N", help="Images per step [128; 16 for surface].")
    ] = None,
    learning_rate: Annotated[
        str | None, typer.Option(metavar="F", help="Peak learning rate [the autoencoder's own].")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Same seed, same weights [0].")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps [auto].")] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="MLflow experiment [anomaly-ae].")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as YAML; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, also those without a flag."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run: its id, or latest.")
    ] = None,
    save_to: Annotated[str | None, typer.Option(metavar="DIR", help="Save a copy of the detector there.")] = None,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train a detector on the normal classes of a data set."""
    asked_for = dict(locals())
    from anomaly_ae.config import TYPES, RunConfig, parse_setting, read_config
    from anomaly_ae.yaml_files import read_lines

    given = {key: value for key, value in asked_for.items() if key in TYPES and value is not None}
    layers = [read_config(read_lines(config)) if config else {}, dict(map(parse_setting, settings or [])), given]
    asked = RunConfig.build(*layers)
    from anomaly_ae import pipeline
    from anomaly_ae.runs import Home

    home = Home.find(mlruns)
    if resume and no_tracking:
        raise UsageError("--no-tracking is said when a run starts; a resumed run goes on as it was started")
    if resume:
        result = pipeline.resume(resume, layers, home=home, save_to=save_to)
    else:
        result = pipeline.train(asked, home=home, save_to=save_to, tracking=not no_tracking)
    _print(dataclasses.asdict(result), as_json, texts.trained)


@app.command()
def evaluate(
    model: Model = "latest",
    dataset: Annotated[
        str | None, typer.Option(metavar="PATH", help="Other labelled pictures [those held out in training].")
    ] = None,
    data_dir: DataDir = None,
    target_fpr: Annotated[
        str | None,
        typer.Option(metavar="F", help="Another false-alarm rate; printed only, the run keeps its own."),
    ] = None,
    guarantee: Guarantee = None,
    confidence: Confidence = None,
    fdr: Annotated[
        float | None,
        typer.Option(metavar="Q", help="Also the images that are anomalies at this false discovery rate."),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Other scorers to measure on the same images: pixel-knn,pca or all."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Measure a detector on held-out test images."""
    from anomaly_ae.config import RunConfig

    rate = None if target_fpr is None else RunConfig.build({"target_fpr": target_fpr}).target_fpr
    from anomaly_ae import pipeline
    from anomaly_ae.runs import Home

    home = Home.find(mlruns)
    evaluation = pipeline.evaluate(
        model,
        dataset=dataset,
        data_dir=data_dir,
        target_fpr=rate,
        guarantee=guarantee,
        confidence=confidence,
        fdr=fdr,
        beside=beside.split(",") if beside else (),
        home=home,
        device=device,
    )
    _print(evaluation.to_dict(), as_json, texts.evaluated)


@app.command()
def calibrate(
    model: Model = "latest",
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another data set, whose classes have the same names.")
    ] = None,
    data_dir: DataDir = None,
    normal_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Normal images that the detector has not seen.")
    ] = None,
    anomaly_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Known anomalies, to measure how many are found.")
    ] = None,
    target_fpr: Annotated[float | None, typer.Option(metavar="F", help="False-alarm rate [as before].")] = None,
    guarantee: Guarantee = None,
    confidence: Confidence = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Make a new detector with another threshold, without training: for new normal images, rate or guarantee."""
    asked = dict(locals())
    from anomaly_ae import pipeline
    from anomaly_ae.runs import Home

    settings = {key: asked[key] for key in asked if key not in ("no_tracking", "mlruns", "as_json")}
    result = pipeline.calibrate(**settings, home=Home.find(mlruns), tracking=not no_tracking)
    _print(dataclasses.asdict(result), as_json, texts.calibrated)


@app.command()
def score(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Images; or a text file of paths, or an address (s3://…).")
    ],
    model: Annotated[str, typer.Option(metavar="MODEL", help="latest, a run id, or a detector's folder.")] = "latest",
    output: Annotated[Path, typer.Option(metavar="FILE", help="Rows, as .parquet, .csv or .jsonl.")] = Path(
        "scores.parquet"
    ),
    target_fpr: Annotated[float | None, typer.Option(metavar="F", help="False-alarm rate [the detector's].")] = None,
    fdr: Annotated[
        float | None,
        typer.Option(metavar="Q", help="Also the images that are anomalies at this false discovery rate."),
    ] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A picture of each anomalous image with its heat map over it.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="One page to look through the images.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Score what is missing, new or changed since the job that wrote there.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=1024, help="Processes that decode, with Ray: that score [one a core]."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    engine: Annotated[str, typer.Option(metavar="NAME", help="local, or ray: many processes or machines.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="A Ray cluster that runs [one of its own, on this machine].")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when a file or folder cannot be read.")
    ] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Score every image of a folder: a row for each, with a score and a verdict, or an error."""
    asked = dict(locals())
    from anomaly_ae import pipeline
    from anomaly_ae.runs import Home

    settings = {key: asked[key] for key in asked if key not in ("strict", "mlruns", "as_json")}
    result = pipeline.score(**settings, home=Home.find(mlruns))
    _print(dataclasses.asdict(result), as_json, texts.scored)
    if strict and (result.errors or result.unread_folders):
        unread = f"files that could not be read: {result.errors:,}, folders: {len(result.unread_folders):,}"
        print(f"strict: {unread}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def encode(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Images; or a text file of paths, or an address (s3://…).")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="A Parquet file: path, error, latent_0, latent_1 …")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="latest, a run id, or a detector's folder.")] = "latest",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Write the latents of a folder of images, for whoever wants fewer dimensions."""
    from anomaly_ae import pipeline
    from anomaly_ae.folder import check_output, encode_folder

    check_output(output)
    detector = pipeline.load(model, mlruns=mlruns, device=device)
    _print(dataclasses.asdict(encode_folder(detector, folder, output)), as_json, texts.encoded)


@app.command()
def runs(
    sync: Annotated[bool, typer.Option("--sync", help="Log to MLflow what could not be logged before.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """List the runs, the newest first."""
    from anomaly_ae.runs import Home
    from anomaly_ae.tracking import mirror

    home = Home.find(mlruns)
    if sync:
        mirror.sync(home)
    else:
        mirror.mark_dead_runs(home)
    records = [dataclasses.asdict(run.record) for run in home.runs()]
    _print({"runs": records}, as_json, texts.listed_runs)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets; a folder of pictures is one, too."""
    from anomaly_ae.data.named import DATASETS

    _print({name: entry.about for name, entry in DATASETS.items()}, as_json, texts.listed)


@app.command()
def autoencoders(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, layer by layer.")] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Pixels [those it was made for, else 28].")
    ] = None,
    channels: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Channels: 3 for colour.")] = 1,
    latent: Annotated[str | None, typer.Option(metavar="N", help="Latent dimensions [its own].")] = None,
    as_json: Json = False,
) -> None:
    """List the autoencoders, or one of them layer by layer."""
    from anomaly_ae.autoencoders import AUTOENCODERS, Options
    from anomaly_ae.autoencoders import image_size as pick_size
    from anomaly_ae.autoencoders.summary import layers, summarise
    from anomaly_ae.config import RunConfig

    asked = RunConfig.build({"image_size": image_size, "latent": latent})
    options = Options(latent=asked.latent)
    if name:
        shape = (channels, *pick_size(name, asked.size, MNIST_SIZE))
        found = {"layers": [dataclasses.asdict(layer) for layer in layers(name, shape, options)]}
        _print(dataclasses.asdict(summarise(name, shape, options)) | found, as_json, texts.layers)
        return
    rows, refused = [], []
    for known in AUTOENCODERS:
        try:
            rows.append(
                dataclasses.asdict(summarise(known, (channels, *pick_size(known, asked.size, MNIST_SIZE)), options))
            )
        except UsageError as error:
            refused.append(one_line(error))
    _print(rows, as_json, texts.autoencoders)
    for reason in refused:
        print(f"left out: {reason}", file=sys.stderr)


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="For example one of pipelines/.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Over the file, e.g. training.epochs=1."),
    ] = None,
    data_dir: DataDir = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Cells to work on at the same time.")] = 1,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate every cell of a pipeline file and compare them; interrupted, it goes on where it was."""
    from anomaly_ae.config import parse_setting
    from anomaly_ae.pipeline import run_plan
    from anomaly_ae.runs import Home

    overrides = [parse_setting(text) for text in settings or []]
    overrides += [("data_dir", data_dir)] if data_dir else []
    result = run_plan(pipeline, overrides, home=Home.find(mlruns), tracking=not no_tracking, jobs=jobs)
    _print(dataclasses.asdict(result), as_json, texts.compared)
    if result.failed:
        raise typer.Exit(1)


@app.command()
def scorers(as_json: Json = False) -> None:
    """List the scorers; several can be joined by +."""
    from anomaly_ae.scorers import SCORERS

    _print({name: entry.about for name, entry in SCORERS.items()}, as_json, texts.listed)


@app.command()
def ui(
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port on this machine.")] = 5000,
    mlruns: Mlruns = None,
) -> None:
    """Browse all runs in MLflow, until Ctrl-C."""
    from anomaly_ae.runs import Home
    from anomaly_ae.tracking.server import browse

    browse(Home.find(mlruns), port)


def main() -> None:
    """Run the command line; an error is one line on standard error, and the exit code says whose it is."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no UTF-8
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Threads that wait spin only briefly: as fast alone, and not many times slower beside another program.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer's word for Ctrl-C before or after the work itself
            _fail("interrupted", code, kind="")
    except Interrupted as error:
        code = _fail(one_line(error), error.exit_code, kind="")
    except AnomalyAEError as error:
        code = _fail(one_line(error), error.exit_code)
    except typer.TyperException as error:
        code = _fail(one_line_of(error), error.exit_code)
    except KeyboardInterrupt:
        code = _fail("interrupted", Interrupted.exit_code, kind="")
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = _fail(f"{error.strerror or error}: {error.filename or 'a file'}", 1)
    except (MemoryError, RuntimeError) as error:  # torch says lack of memory with a RuntimeError
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = _fail("out of memory; close other programs, or give a smaller --batch-size or --latent", 1)
    sys.exit(code)


def one_line_of(error: typer.TyperException) -> str:
    """Typer's message as one line, ending with where to read on."""
    context = getattr(error, "ctx", None)
    command = f"anomaly-ae {context.info_name}" if context and context.parent else "anomaly-ae"
    return " ".join(error.format_message().split()).rstrip(".") + f"; see: {command} --help"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int, kind: str = "error: ") -> int:
    print(f"{kind}{message}", file=sys.stderr)
    return code


def _print(result: Any, as_json: bool, render: Callable[[Any], str]) -> None:
    """One JSON value, or text for people, on standard output."""
    print(json.dumps(result, allow_nan=False) if as_json else render(result), flush=True)


if __name__ == "__main__":
    main()
