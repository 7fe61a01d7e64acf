"""`python -m worker`: the same as `cocoon worker`."""

from worker.cli import app

app()
