"""Having detectors work on folders of images: their scores, their latents, and a page to look through them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from anomaly_ae.cli.app import (
    MODELS,
    Device,
    Fdr,
    Json,
    Mlruns,
    ModelOption,
    app,
    loading,
    option,
    run_store,
    show,
    switch,
)
from anomaly_ae.errors import Interrupted
from anomaly_ae.runtime.messages import logger

Folder = Annotated[
    str, typer.Argument(metavar="FOLDER", help="Images; or a text file of paths, or an address (s3://…).")
]


@app.command()
def score(
    folder: Folder,
    model: ModelOption = "latest",
    output: Annotated[Path, option("FILE", "Rows, as .parquet, .csv or .jsonl.")] = Path("scores.parquet"),
    target_fpr: Annotated[float | None, option("F", "False-alarm rate [the detector's].")] = None,
    fdr: Fdr = None,
    heatmaps: Annotated[
        Path | None, option("DIR", "A picture of each anomalous image with its heat map over it.")
    ] = None,
    masks: Annotated[
        Path | None, option("DIR", "A mask of each anomalous image: 255 in its regions, 0 elsewhere.")
    ] = None,
    report: Annotated[Path | None, option("FILE.html", "One page to look through the images.")] = None,
    resume: Annotated[
        bool, switch("--resume", "Score what is missing, new or changed since the job that wrote there.")
    ] = False,
    workers: Annotated[
        int | None, option("N", "Processes that decode, with Ray: that score [one a core].", min=1, max=1024)
    ] = None,
    device: Device = "auto",
    engine: Annotated[
        str, option("NAME", "local, or ray: many processes or machines.", "engine", "local", "ray")
    ] = "local",
    ray_address: Annotated[
        str | None, option("ADDR", "A Ray cluster that runs [one of its own, on this machine].")
    ] = None,
    strict: Annotated[bool, switch("--strict", "Exit with 1 when a file or folder cannot be read.")] = False,
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Score every image of a folder: a row for each, with a score and a verdict, or an error."""
    settings = {key: value for key, value in locals().items() if key not in ("strict", "mlruns", "as_json")}
    with loading():
        from anomaly_ae.workflows import score
    result = score.score(**settings, home=run_store(mlruns))
    show(result, as_json)
    if result.heatmaps_missing or result.masks_missing:
        raise typer.Exit(1)
    if strict and (result.errors or result.unread_folders):
        unread = f"files that could not be read: {result.errors:,}, folders: {len(result.unread_folders):,}"
        logger.info(f"strict: {unread}")
        raise typer.Exit(1)


@app.command()
def watch(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where images come in; also in folders below it.")],
    output: Annotated[Path, option("DIR", "A folder for the rows; the same one goes on where it ended.")],
    model: ModelOption = "latest",
    heatmaps: Annotated[
        bool, switch("--heatmaps", "Also a picture of each anomalous image, in DIR/heatmaps.")
    ] = False,
    webhook: Annotated[
        str | None, option("URL", "Send anomalies there, signed with ANOMALY_AE_WEBHOOK_SECRET.")
    ] = None,
    webhook_for: Annotated[str, option("NAME", "anomalies or all.", "webhook-for", "anomalies", "all")] = "anomalies",
    once: Annotated[bool, switch("--once", "End when all that is there has a row.")] = False,
    poll: Annotated[
        float | None, option("SECONDS", "List the folder so often, where the system tells of no new files.")
    ] = None,
    device: Device = "auto",
    mlruns: Mlruns = None,
    as_json: Json = False,
) -> None:
    """Score each new image of a folder as it comes in, until Ctrl-C: a row for each, once, also after a kill."""
    settings = {key: value for key, value in locals().items() if key not in ("mlruns", "as_json")}
    with loading():
        from anomaly_ae.workflows import watch
    result = watch.watch(**settings, home=run_store(mlruns))
    show(result, as_json)
    if result.interrupted:
        raise typer.Exit(Interrupted.exit_code)


@app.command()
def encode(
    folder: Folder,
    output: Annotated[Path, option("FILE", "A Parquet file: path, error, latent_0, latent_1 …")],
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


@app.command()
def review(
    output: Annotated[Path, typer.Argument(metavar="[SCORES]", help="What `score` wrote.")] = Path("scores.parquet"),
    model: Annotated[str | None, option("MODEL", f"{MODELS[:-1]} [the one that scored].")] = None,
    folder: Annotated[str | None, option("DIR", "Where the pictures are [where they were scored].")] = None,
    port: Annotated[int, option("N", "Port on this machine [a free one].", min=0, max=65535)] = 0,
    no_browser: Annotated[bool, switch("--no-browser", "Say the address, and open nothing.")] = False,
    mlruns: Mlruns = None,
) -> None:
    """Look through a scored folder on a page: move the threshold, mark what is good or bad; until Ctrl-C."""
    with loading():
        from anomaly_ae.review.serve import review
    settings: dict[str, Any] = {"open_browser": None} if no_browser else {}
    review(output, model, folder=folder, port=port, home=run_store(mlruns), **settings)
