"""`deltawheel sandbox`."""

from pathlib import Path

import click

__all__ = ["command"]


@click.group("sandbox")
def command() -> None:
    """The sandbox world of chained arithmetic."""


@command.command("build")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; unset, the package's own weights are replaced.",
)
@click.option("--seed", default=0, show_default=True, help="Of every draw.")
def build(output: Path | None, seed: int) -> None:
    """Train the base model and the three generators, about 10 minutes on two cores."""
    from deltawheel.infra.sandbox.paths import WEIGHTS
    from deltawheel.pipelines.sandbox.build import build as build_sandbox

    manifest = build_sandbox(output or WEIGHTS, seed=seed, progress=click.echo)
    size = sum(entry.num_bytes for entry in manifest.files.values())
    click.echo(f"{output or WEIGHTS}: {len(manifest.files)} files, {size / 1e6:.1f} MB")
