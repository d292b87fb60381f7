"""`datasets`, `autoencoders` and `scorers`: what there is to choose from."""

from typing import Annotated

import typer

from anomaly_ae.cli.app import Json, app, show_values
from anomaly_ae.cli.completion import DATA_SET, catalogue, named
from anomaly_ae.errors import UsageError, one_line
from anomaly_ae.reporting import text
from anomaly_ae.runtime.progress import say

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
    from anomaly_ae.autoencoders import AUTOENCODERS
    from anomaly_ae.autoencoders import image_size as pick_size
    from anomaly_ae.autoencoders.summary import Architecture, layers, summarise
    from anomaly_ae.config.run_config import RunConfig

    asked = RunConfig.build({"image_size": image_size, "latent": latent})
    if name:
        shape = (channels, *pick_size(name, asked.size, MNIST_SIZE))
        whole = Architecture(**vars(summarise(name, shape, asked)), layers=layers(name, shape, asked))
        show_values(whole, as_json, text.layers)
        return
    rows, refused = [], []
    for known in AUTOENCODERS:
        try:
            rows.append(summarise(known, (channels, *pick_size(known, asked.size, MNIST_SIZE)), asked))
        except UsageError as error:
            refused.append(one_line(error))
    show_values({"autoencoders": rows}, as_json, text.autoencoders)
    for reason in refused:
        say(f"left out: {reason}")


@app.command()
def scorers(as_json: Json = False) -> None:
    """List the scorers; several can be joined by +."""
    show_values(catalogue("scorer"), as_json, text.listed)
