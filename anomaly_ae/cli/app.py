"""The command line itself, and what its commands have in common: options, flags, how results are shown."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from anomaly_ae import __version__
from anomaly_ae.cli.completion import named
from anomaly_ae.config.run_config import DEVICES, GUARANTEES, TYPES
from anomaly_ae.errors import UsageError
from anomaly_ae.escaping import printable_values
from anomaly_ae.runtime.interrupts import leaving_at_once
from anomaly_ae.runtime.printed import Printed, to_dict
from anomaly_ae.runtime.progress import stage
from anomaly_ae.runtime.renamed import current
from anomaly_ae.runtime.spelling import in_shell

if TYPE_CHECKING:
    from anomaly_ae.runs.store import RunStore

Value = TypeVar("Value")

app = typer.Typer(
    name="anomaly-ae",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def option(metavar: str, about: str, kind: str = "", *names: str, flag: str = "", **settings: Any) -> Any:
    """An option with a value; where it is a name, of the catalogue of that kind, if there is one, or of these.

    flag: where it is not called as its parameter
    """
    settings |= named(kind, *names) if kind else {}
    return typer.Option(*filter(None, [flag]), metavar=metavar, help=about, **settings)


def switch(flag: str, about: str) -> Any:
    """An option without a value."""
    return typer.Option(flag, help=about)


MODELS = "latest, a run id, models:/NAME@ALIAS, or a saved detector's folder."
MLRUNS = "Where runs are kept [ANOMALY_AE_MLRUNS, MLFLOW_TRACKING_URI, ./mlruns]."
GUARANTEE_NAMES = "marginal, conditional, cross, or tail, which extrapolates [its own]."
Json = Annotated[bool, switch("--json", "Print one JSON object to standard output, and nothing else.")]
Mlruns = Annotated[str | None, option("DIR", MLRUNS)]
NoFigures = Annotated[bool, switch("--no-figures", "Draw none; `anomaly-ae figures` draws them later.")]
NoTracking = Annotated[bool, switch("--no-tracking", "Leave MLflow out of it.")]
DataDir = Annotated[str | None, option("DIR", "Where data sets lie [ANOMALY_AE_DATA_DIR, ./data].")]
Model = Annotated[str, typer.Argument(metavar="[MODEL]", help=MODELS)]
ModelOption = Annotated[str, option("MODEL", MODELS, flag="--model")]
Guarantee = Annotated[str | None, option("NAME", GUARANTEE_NAMES, "guarantee", *GUARANTEES)]
Device = Annotated[str, option("NAME", "auto, cpu, cuda or mps.", "device", *DEVICES)]
Confidence = Annotated[float | None, option("F", "Of the guarantee conditional [its own, 0.95].")]
Fdr = Annotated[float | None, option("Q", "Also the images that are anomalies at this false discovery rate.")]


@app.callback()
def without_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Train an autoencoder on images of what is normal, and know which new ones are not."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of what a command needs, which are slow where nothing of them was read before."""
    with leaving_at_once(), stage("loading PyTorch"):
        yield


def run_store(mlruns: str | None) -> "RunStore":
    """Where runs are kept."""
    from anomaly_ae.runs.store import RunStore  # here, for most of what `--help` loads would be this

    return RunStore.find(mlruns)


def show(result: Printed, as_json: bool) -> None:
    """One JSON object, or text for people, on standard output."""
    print(json.dumps(result.to_dict(), allow_nan=False) if as_json else result, flush=True)


def show_values(values: Value, as_json: bool, render: Callable[[Value], str]) -> None:
    """The same of other values, which `render` makes a text of."""
    content = json.dumps(values, allow_nan=False, default=to_dict) if as_json else render(printable_values(values))
    print(content, flush=True)


WITHOUT_A_FLAG = (
    *("batch_norm", "channels", "contamination", "defects", "dropout", "folds", "masked", "noise", "patience"),
    *("perceptual", "precision", "schedule", "steps", "top_fraction", "weight_decay"),
)


FLAGS = {"overrides": "set", "from_run": "from"}  # that are not called as their settings
IN_A_FILE = TYPES.keys() - {"data_dir"}  # settings of a pipeline file that `run` has no flag for


def as_flag(name: str, value: Any = None) -> str:
    """A setting as the command line takes it; `overrides` are those of a pipeline file, as KEY=VALUE."""
    if name in FLAGS:
        return in_shell(FLAGS[name], value)
    return as_override(name, value) if name in WITHOUT_A_FLAG else in_shell(name, value)


def as_flag_of_run(name: str, value: Any = None) -> str:
    """A setting as `run` takes it: over the file's."""
    return as_override(name, value) if name in IN_A_FILE else as_flag(name, value)


def as_override(name: str, value: Any = None) -> str:
    """`--set name=value`, or `--set name` where none is said."""
    return in_shell("set", name if value is None else f"{name}={value}")


def parse_setting(text: str) -> tuple[str, str]:
    """Split `KEY=VALUE`. Raises `UsageError` when there is no `=`."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise UsageError(f"--set takes KEY=VALUE, and was given {text!r}; e.g. --set weight_decay=0.001")
    return key, value


# Flags that had another name before, by which they are still taken
RENAMED = {"--beside": "--compare-scorers", "--fit": "--resize-mode"}


def with_current_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with flags as they are called today."""
    split = (argument.partition("=") for argument in arguments)
    return [current(flag, RENAMED) + equals + value for flag, equals, value in split]
