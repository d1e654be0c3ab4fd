"""A worker: supervises attempts in child processes and speaks for them; runs no user code."""
