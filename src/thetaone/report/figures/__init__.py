"""Records in, figure data out: one figure a file, pure."""
