"""`cocoon attest`: evidence measured, explained and judged, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.attest_onchain import judge_paths

app = typer.Typer(no_args_is_help=True, help="Look at attestation evidence offline.")
err = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    err.print(text, markup=False)


@app.command()
def onchain(
    paths: Annotated[
        list[Path], typer.Argument(metavar="QUOTE [COLLATERAL] ...", help="files of quotes and collateral, or folders")
    ],
    at: Annotated[
        int | None, typer.Option(help="judge at this time (unix seconds) instead of the collateral's own")
    ] = None,
) -> None:
    """Judge quotes by the attestation contract on the emulated chain: a JSON line each; exit code 1 if any is refused.

    A quote is binary or hex, or evidence as JSON. Collateral stands beside it as NAME_collateral.json, follows it, or
    lies in the same folder.
    """
    found = refused = 0
    for each in judge_paths(paths, at, note):
        print(each.to_json(), flush=True)
        found += 1
        refused += not each.accepted
    if not found:
        note(f"no quote in {', '.join(map(str, paths))}: name a TDX quote (binary or hex) or evidence as JSON")
    raise typer.Exit(2 if not found else 1 if refused else 0)
