"""How the commands name the rule behind a decision."""

from __future__ import annotations

NO_RULE = "(no rule)"
"""Stands for the verdict of a policy where no rule hit."""
