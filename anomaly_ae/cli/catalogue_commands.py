"""`datasets`, `autoencoders` and `scorers`: what there is to choose from."""

import dataclasses
from typing import Annotated, Any

import typer

from anomaly_ae.cli.app import Json, app, show_values
from anomaly_ae.cli.completion import DATA_SET, PACKAGE, catalogue, named
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError, one_line
from anomaly_ae.reporting import text
from anomaly_ae.runtime.messages import logger
from anomaly_ae.storage.atomic import remembered, sha256

MNIST_SIZE = (28, 28)  # at which the autoencoders that take any size are listed


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets; a folder of pictures is one, too."""
    show_values(catalogue(DATA_SET), as_json, text.listed)


@app.command()
def autoencoders(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, layer by layer.", **named("autoencoder"))
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Pixels [those it was made for, else 28].")
    ] = None,
    channels: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Channels: 3 for colour.")] = 1,
    latent: Annotated[str | None, typer.Option(metavar="N", help="Latent dimensions [its own].")] = None,
    as_json: Json = False,
) -> None:
    """List the autoencoders, or one of them layer by layer."""
    asked = RunConfig.build({"image_size": image_size, "latent": latent})
    if name:
        from anomaly_ae.autoencoders import image_size as pick_size
        from anomaly_ae.autoencoders.summary import Architecture, list_layers, summarise

        shape = (channels, *pick_size(name, asked.size, MNIST_SIZE))
        whole = Architecture(**vars(summarise(name, shape, asked)), layers=list_layers(name, shape, asked))
        show_values(whole, as_json, text.layers)
        return
    found = remembered(
        f"autoencoders-{_sources_digest()}-{asked.image_size}-{channels}-{asked.latent}.json",
        lambda: _summaries(asked, channels),
    )
    show_values({"autoencoders": found["rows"]}, as_json, lambda _: str(found["text"]))
    for reason in found["refused"]:
        logger.info(f"left out: {reason}")


def _summaries(asked: RunConfig, channels: int) -> dict[str, Any]:
    """What each architecture comes to with these settings, and why some of them do not take them."""
    from anomaly_ae.autoencoders import AUTOENCODERS, image_size
    from anomaly_ae.autoencoders.summary import summarise

    rows, refused = [], []
    for name in AUTOENCODERS:
        try:
            shape = (channels, *image_size(name, asked.size, MNIST_SIZE))
            rows.append(summarise(name, shape, asked))
        except UsageError as error:
            refused.append(one_line(error))
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "text": text.autoencoders({"autoencoders": rows}),
        "refused": refused,
    }


def _sources_digest() -> str:
    """What changes when an architecture may have changed."""
    return sha256(*(path.read_bytes() for path in sorted((PACKAGE / "autoencoders").glob("*.py"))))[:16]


@app.command()
def scorers(as_json: Json = False) -> None:
    """List the scorers; several can be joined by +."""
    show_values(catalogue("scorer"), as_json, text.listed)
