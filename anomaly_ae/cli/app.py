"""The command line itself, and what its commands have in common."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import typer

from anomaly_ae import __version__
from anomaly_ae.cli.completion import named
from anomaly_ae.config.run_config import DEVICES
from anomaly_ae.escaping import printable_values
from anomaly_ae.runtime.printed import Printed, to_dict
from anomaly_ae.runtime.progress import stage

T = TypeVar("T")

app = typer.Typer(
    name="anomaly-ae",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output, and nothing else.")]
Mlruns = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where runs are kept [ANOMALY_AE_MLRUNS, MLFLOW_TRACKING_URI, ./mlruns]."),
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Draw none; `anomaly-ae figures` draws them later.")]
DataDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where data sets lie [ANOMALY_AE_DATA_DIR, ./data].")
]
MODELS = "latest, a run id, models:/NAME@ALIAS, or a saved detector's folder."
Model = Annotated[str, typer.Argument(metavar="[MODEL]", help=MODELS)]
ModelOption = Annotated[str, typer.Option("--model", metavar="MODEL", help=MODELS)]
Guarantee = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="marginal, conditional, or tail, which extrapolates [its own].",
        **named("guarantee", "marginal", "conditional", "tail"),
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", **named("device", *DEVICES))]
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


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of what a command needs, which are slow where nothing of them was read before."""
    with stage("loading PyTorch"):
        yield


def show(result: Printed, as_json: bool) -> None:
    """One JSON object, or text for people, on standard output."""
    print(json.dumps(result.to_dict(), allow_nan=False) if as_json else result, flush=True)


def show_values(values: T, as_json: bool, render: Callable[[T], str]) -> None:
    """The same of other values, which `render` makes a text of."""
    content = json.dumps(values, allow_nan=False, default=to_dict) if as_json else render(printable_values(values))
    print(content, flush=True)
