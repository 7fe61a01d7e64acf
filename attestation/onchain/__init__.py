"""What the on-chain verifier reads: quotes and collateral as cells, with the hints that its P-256 check needs."""
