"""The world: the only code that waits, reads clocks or writes files."""
