"""The error a person sees when the local cloud can't do as asked."""

from __future__ import annotations


class LocalCloudError(Exception):
    """The local cloud can't start or stop; the message ends in what to do about it."""
