"""`python -m flows RECIPE [--set KEY=VALUE ...]`: the `retrain` flow from a terminal, as `make demo` runs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from flows import environment
from segpipe.cli import drawing, views
from segpipe.errors import SegpipeError


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe file, such as flows/recipes/scenes.yaml")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, as for segpipe retrain")] = None,
) -> None:
    """Runs the retrain flow here, with Prefect's own local API unless PREFECT_API_URL names a server."""
    environment.prepare()
    from flows.endings import EndedRedError
    from flows.retrain import retrain  # after the environment: prefect reads it when it is imported
    from segpipe.stages.results import RetrainResult

    console = Console()
    state = retrain(recipe, tuple(overrides or ()), return_state=True)
    ended = state.result(raise_on_failure=False)
    result = ended.result if isinstance(ended, EndedRedError) else ended
    if isinstance(result, SegpipeError):
        console.print(str(result), style="red", markup=False)
        sys.exit(result.exit_status)
    if not isinstance(result, RetrainResult):
        raise result if isinstance(result, BaseException) else RuntimeError(f"the flow ended as {state}")
    views.retrained(console, result)
    drawing.say(console, f"\nResults are in {result.home}. To look around:")
    for name, command in result.pages.items():
        drawing.say(console, f"  {name:8} {command}")
    sys.exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    typer.run(main)
