"""`cocoon`: the one command. Each party's own commands live with that party and are mounted here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.attest import app as attest_app
from app.audit.cli import command as audit_command
from app.committee import app as committee_app
from app.demo import PROMPT
from app.demo import main as run_demo
from app.doctor import main as run_doctor
from app.governance.cli import app as governance_app
from app.shares import command as shares_command
from app.up import main as run_up
from client.cli import app as client_app
from relayer.cli import app as relayer_app
from scripts.deploy.cli import app as deploy_app
from worker.agent.cli import app as node_app
from worker.cli import app as worker_app

app = typer.Typer(
    name="cocoon",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Confidential AI computing on TON: sealed prompts, attested machines, receipts that the chain pays.",
)
app.add_typer(client_app, name="client")
app.add_typer(node_app, name="node")
app.add_typer(worker_app, name="worker")
relayer_app.command("shares")(shares_command)
app.add_typer(relayer_app, name="relayer")
app.add_typer(deploy_app, name="deploy")
app.add_typer(attest_app, name="attest")
app.add_typer(governance_app, name="governance")
app.add_typer(committee_app, name="committee")
app.command("audit")(audit_command)

HomeOption = Annotated[Path, typer.Option(help="folder of the embedded network", envvar="COCOON_HOME")]


@app.command()
def demo(
    prompt: Annotated[str, typer.Option(help="what to ask the model")] = PROMPT,
    keep: Annotated[Path | None, typer.Option(help="run in this folder and keep it")] = None,
) -> None:
    """Run the whole network once: a sealed, paid chat completion, end to end."""
    raise typer.Exit(run_demo(prompt, keep))


@app.command()
def up(home: HomeOption = Path(".cocoon")) -> None:
    """Keep the embedded network running; its state survives a restart."""
    raise typer.Exit(run_up(home))


@app.command()
def doctor(home: HomeOption = Path(".cocoon")) -> None:
    """Say what this machine and the network in --home have, what they lack, and how to mend it."""
    raise typer.Exit(run_doctor(home))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
