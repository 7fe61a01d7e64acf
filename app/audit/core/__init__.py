"""Facts in, findings out: no input or output here, no keys, no clock."""
