"""What clients and worker agents see of the relayer."""
