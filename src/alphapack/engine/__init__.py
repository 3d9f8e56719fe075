"""The core: inputs in, records out. It reads no clock, draws no randomness of its own and does no I/O."""
