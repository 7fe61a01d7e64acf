from relayer.cli import app

app()
