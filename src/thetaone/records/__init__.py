"""Frozen, versioned records: the only thing that passes between rooms."""
