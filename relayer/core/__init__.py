"""The relayer's pure core: facts in, (state, effects) out. No input, no output, no clock."""
