"""Keeping the lake small: what no published snapshot and no live run needs is found and removed."""
