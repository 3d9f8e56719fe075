"""HTTP: parse, ask the host, encode."""
