"""Two engines, one answer: what tonpy executes in the contract tests, executed again by @ton/sandbox's emulator."""
