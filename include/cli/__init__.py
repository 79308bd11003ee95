"""The commands of ./modlake."""
