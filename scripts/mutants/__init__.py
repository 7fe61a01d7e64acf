"""Mutation check of the contracts: break one thing, see whether a test notices."""
