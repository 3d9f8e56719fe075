"""Owners: each service holds one slice of state and never imports another."""
