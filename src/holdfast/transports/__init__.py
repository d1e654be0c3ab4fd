"""How frames and blobs travel: WebSocket, HTTP beside it, and a pair within one process.

Owns the adapters of `ports.Channel` and `ports.Dialer`. They carry bytes and never read them.
"""
