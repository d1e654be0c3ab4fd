"""Frozen values: what a task, an attempt, an outcome and a message are, and no more."""
