"""`cocoon client job`: many prompts at once, paid by what came of them."""

from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from client import show

Command = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
Main = Callable[[Coroutine[Any, Any, int | None]], None]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """`90`, `30m`, `2h`, `1d`."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise typer.BadParameter(f"{text!r} is no time, such as 90s, 30m, 2h or 1d")
    return int(number) * _UNITS[unit]


def job_app(command: Command, main: Main, nano: Callable[[str], int]) -> typer.Typer:
    """The sub-commands; `command` runs one where the home is, `main` reports every error in one line."""
    app = typer.Typer(no_args_is_help=True, help="Batch jobs: a file of prompts, sealed once for several nodes.")
    job_argument = Annotated[str, typer.Argument(metavar="JOB", help="the job's account, 64 hex digits")]

    @app.command()
    def submit(
        file: Annotated[Path, typer.Argument(help="JSONL in OpenAI's batch form")],
        node: Annotated[list[str], typer.Option(help="a node that may run it; up to sixteen times")],
        maximum: Annotated[
            int | None,
            typer.Option(parser=nano, metavar="TON", help="refuse if the lines may cost more (max_request_nano)"),
        ] = None,
        deadline: Annotated[
            int | None, typer.Option(parser=seconds, metavar="TIME", help="for a node to accept, such as 30m (2h)")
        ] = None,
        grace: Annotated[
            int | None, typer.Option(parser=seconds, metavar="TIME", help="from the deadline to the result (1h)")
        ] = None,
        window: Annotated[
            int | None, typer.Option(parser=seconds, metavar="TIME", help="to fetch it, before it is paid anyway (1d)")
        ] = None,
    ) -> None:
        """Seal the file, leave it at the relayer, and order it from what is not allotted."""
        arguments = {"file": str(file.absolute()), "nodes": node, "maximum_nano": maximum}
        times = {"deadline": deadline, "grace": grace, "window": window}

        async def work() -> None:
            show.job(await command("job submit", {**arguments, **times}))

        main(work())

    @app.command()
    def status(job: job_argument) -> None:
        """What the chain shows of it."""

        async def work() -> None:
            show.job(await command("job status", {"job": job}))

        main(work())

    @app.command("list")
    def list_() -> None:
        """Every job of this home, newest first."""

        async def work() -> None:
            for one in (await command("job list", {}))["jobs"]:
                show.job(one)

        main(work())

    @app.command()
    def fetch(
        job: job_argument,
        out: Annotated[Path | None, typer.Option(help="where to write the answers (JOB.jsonl here)")] = None,
    ) -> None:
        """Fetch, open and check the result, write the answers, and pay the node at once."""
        path = (out or Path(f"{job[:64]}.jsonl")).absolute()

        async def work() -> None:
            show.fetched(await command("job fetch", {"job": job, "out": str(path)}))

        main(work())

    @app.command()
    def refund(job: job_argument) -> None:
        """Everything back to the escrow, when no result came in time. Who accepted it is slashed."""

        async def work() -> None:
            await command("job refund", {"job": job})
            show.out.print(f"job {job} is refunded to the escrow", markup=False)

        main(work())

    return app
