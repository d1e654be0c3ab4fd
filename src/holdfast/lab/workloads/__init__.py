"""Tasks that the lab and the demonstration run; each tells the witness what it does."""
