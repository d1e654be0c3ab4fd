"""The lab: real processes are started, disturbed, healed, and judged by what was recorded.

Never part of a running service: nothing below imports it.
"""
