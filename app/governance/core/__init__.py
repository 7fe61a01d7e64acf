"""Actions, their words, bounds and times: pure."""
