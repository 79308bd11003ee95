"""Rehearsing misbehaviour: what the local cloud is told to do wrong, by a plan that repeats itself."""
