"""Nouns: immutable values that every layer may name."""
