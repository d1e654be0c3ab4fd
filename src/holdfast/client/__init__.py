"""The SDK: submit functions, wait for their results, ask what became of them.

Owns the client's side of a session and its blocking face. It never opens a socket by itself: the
dialers are given to it. This module loads nothing, so that `client.task` stays light.
"""
