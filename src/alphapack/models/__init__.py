"""Numerics with results: pure, used by services and by the Python facade."""
