"""Codecs without I/O, one file an exchange: bytes in, wire events out, and the venue's own continuity rule."""
