"""Passes sealed requests to workers and gets their receipts paid. Trusted for liveness only: it can move no money."""
