"""`train`, `evaluate`, `calibrate` and `export`: making detectors, measuring them, and handing them on."""

from pathlib import Path
from typing import Annotated

import typer

from anomaly_ae.cli.app import (
    Confidence,
    DataDir,
    Device,
    Guarantee,
    Json,
    Mlruns,
    Model,
    NoFigures,
    app,
    loading,
    show,
)
from anomaly_ae.cli.completion import DATA_SET, check_config, check_dataset, named
from anomaly_ae.cli.flags import WITHOUT_A_FLAG, parse_setting
from anomaly_ae.config.run_config import DEVICES, PRESETS
from anomaly_ae.errors import UnknownName, UsageError

ONNX = "onnx"


@app.command()
def train(
    normal: Annotated[
        str | None, typer.Option(metavar="CLASSES", help="Normal classes: 0,1,2 or 0-4 or all-but:7 or good.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="See: anomaly-ae datasets; or a folder of pictures [digits].",
            **named(DATA_SET),
        ),
    ] = None,
    data_dir: DataDir = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="fast, default, or surface, for photos of things [default].",
            **named("preset", *PRESETS),
        ),
    ] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="See: anomaly-ae autoencoders [conv; repair for surface].", **named("autoencoder")
        ),
    ] = None,
    latent: Annotated[
        str | None, typer.Option(metavar="N", help="Latent dimensions [the autoencoder's own; 12 for conv].")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Resize the images [as the autoencoder or the data have it].")
    ] = None,
    resize_mode: Annotated[
        str | None, typer.Option(metavar="NAME", help="Other proportions: stretch, pad or crop [stretch].")
    ] = None,
    intensity: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Black and white of more than 8 bits; or p1:p99 [found by looking]."),
    ] = None,
    tile: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="See large images in overlapping tiles [images whole].")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What stays normal: as-is, mirror, flips, turns, light, or e.g. flips+light.",
            **named("augmentation"),
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="mse, bce, ssim, elbo, repair, perceptual, or e.g. mse+0.5*ssim [its own].",
            **named("objective"),
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See: anomaly-ae scorers [the preset's own].", **named("scorer")),
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
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps [auto].", **named("device", *DEVICES))
    ] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="MLflow experiment [anomaly-ae].")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as YAML; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help=f"Any setting; without a flag are {', '.join(WITHOUT_A_FLAG)}."
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run: its id, or latest.")
    ] = None,
    save_to: Annotated[str | None, typer.Option(metavar="DIR", help="Save a copy of the detector there.")] = None,
    no_figures: NoFigures = False,
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train a detector on the normal classes of a data set."""
    asked_for = dict(locals())
    from anomaly_ae.config.run_config import TYPES, RunConfig, read_config
    from anomaly_ae.storage.atomic import expand
    from anomaly_ae.storage.yaml_files import read_lines

    given = {key: value for key, value in asked_for.items() if key in TYPES and value is not None}
    layers = [
        read_config(read_lines(expand(config))) if config else {},
        dict(map(parse_setting, settings or [])),
        given,
    ]
    asked = RunConfig.build(*layers)
    check_config(asked)
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking import run_logger

    home = RunStore.find(mlruns)
    if resume and no_tracking:
        raise UsageError("--no-tracking is said when a run starts; a resumed run goes on as it was started")
    if not no_tracking:
        run_logger.start()
    with loading():
        from anomaly_ae.workflows import train
    if not no_figures:
        from anomaly_ae.reporting.figures import painter

        painter.start()
    if resume:
        result = train.resume(resume, layers, home=home, save_to=save_to, figures=not no_figures)
    else:
        result = train.train(asked, home=home, save_to=save_to, tracking=not no_tracking, figures=not no_figures)
    show(result, as_json)


@app.command()
def evaluate(
    model: Model = "latest",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Other labelled pictures [those held out in training].",
            **named(DATA_SET),
        ),
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
    compare_scorers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Other scorers to measure on the same images: pixel-knn,pca or all.",
            **named("scorer", "all"),
        ),
    ] = None,
    device: Device = "auto",
    no_figures: NoFigures = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Measure a detector on held-out test images."""
    from anomaly_ae.config.run_config import RunConfig

    check_dataset(dataset, data_dir)
    rate = None if target_fpr is None else RunConfig.build({"target_fpr": target_fpr}).target_fpr
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking import run_logger

    home = RunStore.find(mlruns)
    if not no_figures:
        from anomaly_ae.reporting.figures import painter

        painter.start("sklearn.manifold")
    with loading():
        from anomaly_ae.workflows import evaluate
    if not home.has_no_store():
        run_logger.start()
    evaluate.evaluate(
        model,
        dataset=dataset,
        data_dir=data_dir,
        target_fpr=rate,
        guarantee=guarantee,
        confidence=confidence,
        fdr=fdr,
        compare_scorers=compare_scorers.split(",") if compare_scorers else (),
        home=home,
        device=device,
        figures=not no_figures,
        tell=lambda evaluation: show(evaluation, as_json),  # before it is drawn, which takes longer than to measure
    )


@app.command()
def calibrate(
    model: Model = "latest",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Another data set, whose classes have the same names.",
            **named(DATA_SET),
        ),
    ] = None,
    data_dir: DataDir = None,
    normal_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Normal images that the detector has not seen.")
    ] = None,
    anomaly_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Known anomalies, to measure how many are found.")
    ] = None,
    target_fpr: Annotated[float | None, typer.Option(metavar="F", help="False-alarm rate [as before].")] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="T", help="A threshold of your own, instead of one that holds a rate.")
    ] = None,
    detect: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="The highest threshold that finds this share of --anomaly-folder."),
    ] = None,
    guarantee: Guarantee = None,
    confidence: Confidence = None,
    device: Device = "auto",
    no_tracking: Annotated[bool, typer.Option("--no-tracking", help="Leave MLflow out of it.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Make a new detector with another threshold, without training: for new normal images, rate or guarantee."""
    asked = dict(locals())
    check_dataset(dataset, data_dir)
    from anomaly_ae.runs.store import RunStore
    from anomaly_ae.tracking import run_logger

    if not no_tracking:
        run_logger.start()
    with loading():
        from anomaly_ae.workflows import calibrate
    settings = {key: asked[key] for key in asked if key not in ("no_tracking", "mlruns", "as_json")}
    result = calibrate.calibrate(**settings, home=RunStore.find(mlruns), tracking=not no_tracking)
    show(result, as_json)


@app.command()
def export(
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it, as in detector.onnx.")],
    model: Model = "latest",
    kind: Annotated[str, typer.Option("--format", metavar="NAME", help="onnx.")] = "onnx",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Write a detector as one file for runtimes without PyTorch; it is compared with PyTorch first."""
    if kind != ONNX:
        raise UnknownName("format", kind, [ONNX])
    with loading():
        from anomaly_ae.integrations.onnx import check_output, export_onnx
        from anomaly_ae.workflows import find_model
    check_output(output)
    show(export_onnx(find_model.load(model, mlruns=mlruns, device="cpu"), output), as_json)
