"""Making detectors, measuring them, and handing them on."""

from pathlib import Path
from typing import Annotated, Any

from anomaly_ae.cli.app import (
    WITHOUT_A_FLAG,
    Confidence,
    DataDir,
    Device,
    Fdr,
    Guarantee,
    Json,
    Mlruns,
    Model,
    NoFigures,
    NoTracking,
    app,
    loading,
    option,
    parse_setting,
    run_store,
    show,
    switch,
)
from anomaly_ae.cli.completion import DATA_SET, check_config, check_dataset
from anomaly_ae.config.presets import PRESETS
from anomaly_ae.config.run_config import DEVICES, GUARANTEES, TYPES, RunConfig, read_config
from anomaly_ae.errors import UnknownName, UsageError
from anomaly_ae.storage.atomic import expand
from anomaly_ae.storage.yaml_files import read_lines

Marks = Annotated[Path | None, option("FILE", "What was marked in a review, as scores.parquet.marks.jsonl.")]
ONNX = "onnx"


@app.command()
def train(
    normal: Annotated[str | None, option("CLASSES", "Normal classes: 0,1,2 or 0-4 or all-but:7 or good.")] = None,
    dataset: Annotated[
        str | None,
        option("NAME|PATH", "See: anomaly-ae datasets; or a folder of pictures, or a manifest [digits].", DATA_SET),
    ] = None,
    data_dir: DataDir = None,
    preset: Annotated[
        str | None,
        option("NAME", "fast, default, surface-scratch, surface for photos [auto, by size].", "preset", *PRESETS),
    ] = None,
    autoencoder: Annotated[
        str | None, option("NAME", "See: anomaly-ae autoencoders [conv; feature-conv for surface].", "autoencoder")
    ] = None,
    backbone: Annotated[
        str | None, option("NAME", "The timm network whose features feature-conv sees [the packaged one].")
    ] = None,
    backbone_weights: Annotated[
        str | None, option("FILE", "Its weights as safetensors, by timm's names [those packaged].")
    ] = None,
    download: Annotated[bool | None, switch("--download", "Download timm's weights of the backbone [never].")] = None,
    latent: Annotated[str | None, option("N", "Latent dimensions [the autoencoder's own; 12 for conv].")] = None,
    image_size: Annotated[
        str | None, option("N|HxW", "Resize the images [as the autoencoder or the data have it].")
    ] = None,
    resize_mode: Annotated[str | None, option("NAME", "Other proportions: stretch, pad or crop [stretch].")] = None,
    intensity: Annotated[
        str | None, option("LOW:HIGH", "Black and white of more than 8 bits; or p1:p99 [found by looking].")
    ] = None,
    roi: Annotated[
        str | None, option("FILE|X,Y,W,H", "Look here alone: an image's white, or boxes in shares [everywhere].")
    ] = None,
    tile: Annotated[str | None, option("N|HxW", "See large images in overlapping tiles [images whole].")] = None,
    augment: Annotated[
        str | None,
        option("NAME", "What stays normal: as-is, mirror, flips, turns, light, or e.g. flips+light.", "augmentation"),
    ] = None,
    objective: Annotated[
        str | None,
        option("NAME", "mse, bce, ssim, elbo, repair, restore, perceptual, mse+0.5*ssim … [its own].", "objective"),
    ] = None,
    scorer: Annotated[str | None, option("NAME", "See: anomaly-ae scorers [the preset's own].", "scorer")] = None,
    target_fpr: Annotated[str | None, option("F", "False-alarm rate [0.05; of few images up to 0.125].")] = None,
    guarantee: Annotated[
        str | None,
        option(
            "NAME",
            "marginal, conditional, tail, or cross, for few images [by their number].",
            "guarantee",
            *GUARANTEES,
        ),
    ] = None,
    trim_training: Annotated[
        str | None, option("SHARE", "Leave out the share of the training images that fits worst [0].")
    ] = None,
    epochs: Annotated[str | None, option("N", "Epochs [as many as the data need].")] = None,
    batch_size: Annotated[str | None, option("N", "Images per step [128; 8 for surface].")] = None,
    learning_rate: Annotated[str | None, option("F", "Peak learning rate [the autoencoder's own].")] = None,
    seed: Annotated[str | None, option("N", "Same seed, same weights [0].")] = None,
    device: Annotated[str | None, option("NAME", "auto, cpu, cuda or mps [auto].", "device", *DEVICES)] = None,
    experiment: Annotated[str | None, option("NAME", "MLflow experiment [anomaly-ae].")] = None,
    config: Annotated[Path | None, option("FILE", "Settings as YAML; flags win over it.")] = None,
    settings: Annotated[
        list[str] | None,
        option("KEY=VALUE", f"Any setting; without a flag are {', '.join(WITHOUT_A_FLAG)}.", flag="--set"),
    ] = None,
    resume: Annotated[str | None, option("RUN", "Go on with an interrupted run: its id, or latest.")] = None,
    from_run: Annotated[
        str | None, option("RUN", "Begin with the weights and data of a trained run.", flag="--from")
    ] = None,
    add_marks: Annotated[str | None, option("FILE", "Marks, whose good images are normal, too; with --from.")] = None,
    save_to: Annotated[str | None, option("DIR", "Save a copy of the detector there.")] = None,
    no_figures: NoFigures = False,
    no_tracking: NoTracking = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Train a detector on the normal classes of a data set."""
    flags = {key: value for key, value in locals().items() if key in TYPES and value is not None}
    from_file = read_config(read_lines(expand(config))) if config else {}
    layers = [from_file, dict(map(parse_setting, settings or [])), flags]
    requested = RunConfig.build(*layers)
    check_config(requested)
    from anomaly_ae.tracking import run_logger

    home = run_store(mlruns)
    if resume and no_tracking:
        raise UsageError("--no-tracking is said when a run starts; a resumed run goes on as it was started")
    if not no_tracking:
        run_logger.start(home)
    with loading():
        from anomaly_ae.workflows import train
    if not no_figures:
        from anomaly_ae.reporting.figures import painter

        painter.start()
    if resume:
        result = train.resume(resume, layers, home=home, save_to=save_to, figures=not no_figures)
    else:
        where: dict[str, Any] = {"home": home, "save_to": save_to}
        where |= {"tracking": not no_tracking, "figures": not no_figures}
        both = (from_run, add_marks) if from_run and add_marks else None
        result = train.train_from(*both, layers, **where) if both else train.train(requested, **where)
    show(result, as_json)


@app.command()
def evaluate(
    model: Model = "latest",
    dataset: Annotated[
        str | None,
        option(
            "NAME|PATH", "Other labelled pictures, a folder or a manifest [those held out in training].", DATA_SET
        ),
    ] = None,
    data_dir: DataDir = None,
    marks: Marks = None,
    target_fpr: Annotated[
        str | None, option("F", "Another false-alarm rate; printed only, the run keeps its own.")
    ] = None,
    guarantee: Guarantee = None,
    confidence: Confidence = None,
    fdr: Fdr = None,
    compare_scorers: Annotated[
        str | None,
        option("NAMES", "Other scorers to measure on the same images: pixel-knn,pca or all.", "scorer", "all"),
    ] = None,
    device: Device = "auto",
    no_figures: NoFigures = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Measure a detector on held-out test images."""
    settings = {key: value for key, value in locals().items() if key not in ("no_figures", "mlruns", "as_json")}
    check_dataset(dataset, data_dir)
    if target_fpr is not None:
        settings["target_fpr"] = RunConfig.build({"target_fpr": target_fpr}).target_fpr
    settings["compare_scorers"] = compare_scorers.split(",") if compare_scorers else ()
    from anomaly_ae.tracking import run_logger

    home = run_store(mlruns)
    if not no_figures:
        from anomaly_ae.reporting.figures import painter

        painter.start("sklearn.manifold")
    with loading():
        from anomaly_ae.workflows import evaluate
    if not home.has_no_store():
        run_logger.start(home)
    evaluate.evaluate(
        **settings,
        home=home,
        figures=not no_figures,
        tell=lambda evaluation: show(evaluation, as_json),  # before it is drawn, which takes longer than to measure
    )


@app.command()
def calibrate(
    model: Model = "latest",
    dataset: Annotated[
        str | None, option("NAME|PATH", "Another data set, whose classes have the same names.", DATA_SET)
    ] = None,
    data_dir: DataDir = None,
    normal_folder: Annotated[Path | None, option("DIR", "Normal images that the detector has not seen.")] = None,
    anomaly_folder: Annotated[Path | None, option("DIR", "Known anomalies, to measure how many are found.")] = None,
    marks: Marks = None,
    target_fpr: Annotated[float | None, option("F", "False-alarm rate [as before].")] = None,
    threshold: Annotated[
        float | None, option("T", "A threshold of your own, instead of one that holds a rate.")
    ] = None,
    detect: Annotated[
        float | None, option("SHARE", "The highest threshold that finds this share of the known anomalies.")
    ] = None,
    guarantee: Guarantee = None,
    confidence: Confidence = None,
    device: Device = "auto",
    no_tracking: NoTracking = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Make a new detector with another threshold, without training: for new normal images, rate or guarantee."""
    settings = {key: value for key, value in locals().items() if key not in ("no_tracking", "mlruns", "as_json")}
    check_dataset(dataset, data_dir)
    from anomaly_ae.tracking import run_logger

    home = run_store(mlruns)
    if not no_tracking:
        run_logger.start(home)
    with loading():
        from anomaly_ae.workflows import calibrate
    result = calibrate.calibrate(**settings, home=home, tracking=not no_tracking)
    show(result, as_json)


@app.command()
def export(
    output: Annotated[Path, option("FILE", "Where to write it, as in detector.onnx.")],
    model: Model = "latest",
    kind: Annotated[str, option("NAME", "onnx.", flag="--format")] = "onnx",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Write a detector as one file for runtimes without PyTorch; it is compared with PyTorch first."""
    if kind != ONNX:
        raise UnknownName("format", kind, [ONNX])
    with loading():
        from anomaly_ae.integrations.onnx import check_onnx_file, export_onnx
        from anomaly_ae.workflows import find_model
    check_onnx_file(output)
    show(export_onnx(find_model.load(model, mlruns=mlruns, device="cpu"), output), as_json)
