"""`score` and `encode`: a detector at work on a folder."""

from pathlib import Path
from typing import Annotated

import typer

from anomaly_ae.cli.app import Device, Json, Mlruns, ModelOption, app, loading, show
from anomaly_ae.cli.completion import named
from anomaly_ae.runtime.messages import logger


@app.command()
def score(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Images; or a text file of paths, or an address (s3://…).")
    ],
    model: ModelOption = "latest",
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
    device: Device = "auto",
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="local, or ray: many processes or machines.", **named("engine", "local", "ray")
        ),
    ] = "local",
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
    from anomaly_ae.runs.store import RunStore

    with loading():
        from anomaly_ae.workflows import score
    settings = {key: asked[key] for key in asked if key not in ("strict", "mlruns", "as_json")}
    result = score.score(**settings, home=RunStore.find(mlruns))
    show(result, as_json)
    if result.heatmaps_missing:
        raise typer.Exit(1)
    if strict and (result.errors or result.unread_folders):
        unread = f"files that could not be read: {result.errors:,}, folders: {len(result.unread_folders):,}"
        logger.info(f"strict: {unread}")
        raise typer.Exit(1)


@app.command()
def encode(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Images; or a text file of paths, or an address (s3://…).")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="A Parquet file: path, error, latent_0, latent_1 …")],
    model: ModelOption = "latest",
    device: Device = "auto",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Write the latents of a folder of images, for whoever wants fewer dimensions."""
    with loading():
        from anomaly_ae.scoring.encode import check_latents_file, encode_folder
        from anomaly_ae.workflows import find_model
    check_latents_file(output)
    detector = find_model.load(model, mlruns=mlruns, device=device)
    show(encode_folder(detector, folder, output), as_json)
