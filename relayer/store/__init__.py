"""Where facts, states, open effects and cursors land together."""
