"""What the relayer reads from the chain and what it sends there."""
