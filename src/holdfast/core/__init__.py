"""SANS-IO decisions: values in, values out. No clock, no chance, no sockets, no configuration."""
