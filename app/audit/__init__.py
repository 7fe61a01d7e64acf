"""`cocoon audit`: whether any contract of a network holds what it owes, from chain data alone."""
