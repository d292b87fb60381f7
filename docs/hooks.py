"""What mkdocs makes the site of: the repository's own pages, each where it lies, so that their links hold in both,
and two pages that are made of the code.
"""

from collections.abc import Iterator
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from anomaly_ae.cli import app

ROOT = Path(__file__).parent.parent
TAKEN = (
    "*.md",
    "LICENSE",
    "NOTICE",
    "docs/*.md",
    "docs/*.png",
    "docs/*.css",
    "docs/*.js",
    "pipelines/**/*.md",
    "pipelines/**/*.csv",
    "benchmarks/**/*.md",
    "examples/*.*",
)
API = {
    "Detectors": "load Detector Region score_folder FolderScores plot load_part load_dataset",
    "The commands": "RunConfig train train_from evaluate calibrate score compare promote run_pipeline",
    "scikit-learn": "AutoencoderDetector",
    "What the commands return": "runs.run_results runs.pipeline_results detector.evaluation scoring.scoring_results",
    "What is said of a batch": (
        "calibration.drift.Drift calibration.discoveries.Discoveries calibration.odd.OddNormals"
    ),
    "Errors": "AnomalyAEError errors",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and ours in place of those that lie in `docs/` alone."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = [path for pattern in TAKEN for path in sorted(ROOT.glob(pattern))]
    ours = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    made = {"docs/commands.md": commands(), "docs/api.md": api()}
    return Files([*theme, *ours, *(File.generated(config, name, content="\n".join(made[name])) for name in made)])


def commands() -> Iterator[str]:
    """The page of the commands: what `--help` says of each."""
    group = typer.main.get_command(app)
    yield f"# Commands\n\n{group.help}\n\nIn brackets stands what holds where nothing is said.\n"
    for name, command in group.commands.items():
        context = typer.Context(command, info_name=name)
        yield f"## {name}\n\n{command.help}\n"
        yield f"```\nanomaly-ae {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
        rows = (parameter.get_help_record(context) for parameter in command.get_params(context))
        yield from (f"- `{flag}`: {about}" for flag, about in rows)
        yield ""


def api() -> Iterator[str]:
    """The page of the public names: what their docstrings say."""
    yield "# Python API\n\n::: anomaly_ae\n    options: {members: false, show_root_heading: false}\n"
    for heading, names in API.items():
        yield f"## {heading}\n"
        yield from (f"::: anomaly_ae.{name}\n" for name in names.split())
