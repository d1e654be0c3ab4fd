"""Numbered SQL files, run in order, forward only; `migrate` reads them as package data."""
