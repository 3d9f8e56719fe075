"""Arithmetic: pure compiled functions over arrays. No clock, chance, file or global state is in reach."""
