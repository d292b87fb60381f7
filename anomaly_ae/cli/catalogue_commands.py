"""`datasets`, `autoencoders` and `scorers`: what there is to choose from."""

import dataclasses
from typing import Annotated, Any

import typer

from anomaly_ae.cli.app import Json, app, option, show_values
from anomaly_ae.cli.completion import DATA_SET, PACKAGE, catalogue, named
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError, one_line
from anomaly_ae.reporting.text import listings
from anomaly_ae.runtime.messages import logger
from anomaly_ae.storage.atomic import remembered, sha256

MNIST_SIZE = (28, 28)  # at which the autoencoders that take any size are listed


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets; a folder of pictures is one, too, and so is a manifest."""
    show_values(catalogue(DATA_SET), as_json, listings.data_sets)


@app.command()
def autoencoders(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One of them, layer by layer.", **named("autoencoder"))
    ] = None,
    image_size: Annotated[str | None, option("N|HxW", "Pixels [those it was made for, else 28].")] = None,
    channels: Annotated[int, option("N", "Channels: 3 for colour.", min=1, max=64)] = 1,
    latent: Annotated[str | None, option("N", "Latent dimensions [its own].")] = None,
    as_json: Json = False,
) -> None:
    """List the autoencoders, or one of them layer by layer."""
    requested = RunConfig.build({"image_size": image_size, "latent": latent})
    if name:
        from anomaly_ae.autoencoders import image_size as pick_size
        from anomaly_ae.autoencoders.summary import Architecture, list_layers, summarise

        shape = (channels, *pick_size(name, requested.size, MNIST_SIZE))
        whole = Architecture(**vars(summarise(name, shape, requested)), layers=list_layers(name, shape, requested))
        show_values(whole, as_json, listings.layers)
        return
    sources = sha256(*(path.read_bytes() for path in sorted((PACKAGE / "autoencoders").glob("*.py"))))[:16]
    listed = remembered(
        f"autoencoders-{sources}-{requested.image_size}-{channels}-{requested.latent}.json",
        lambda: _summaries(requested, channels),
    )
    show_values({"autoencoders": listed["rows"]}, as_json, lambda _: str(listed["text"]))
    for reason in listed["refused"]:
        logger.info(f"left out: {reason}")


def _summaries(requested: RunConfig, channels: int) -> dict[str, Any]:
    """What each architecture comes to with these settings, and why some of them do not take them."""
    from anomaly_ae.autoencoders import AUTOENCODERS, image_size
    from anomaly_ae.autoencoders.summary import summarise

    rows, refused = [], []
    for name in AUTOENCODERS:
        try:
            shape = (channels, *image_size(name, requested.size, MNIST_SIZE))
            rows.append(summarise(name, shape, requested))
        except UsageError as error:
            refused.append(one_line(error))
    return {
        "rows": [dataclasses.asdict(row) for row in rows],
        "text": listings.autoencoders({"autoencoders": rows}),
        "refused": refused,
    }


@app.command()
def scorers(as_json: Json = False) -> None:
    """List the scorers; several can be joined by +, with weights, as in feature-error+2*patch-knn."""
    show_values(catalogue("scorer"), as_json, listings.listed)
