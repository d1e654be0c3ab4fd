"""Every bound in one place, with its unit in its name. A bound is a number, never a policy."""

from __future__ import annotations

# Payloads and frames.
INLINE_BYTES_MAX = 64 * 1024
"""A payload up to this size travels and rests in its row; above it, by reference to a blob."""
PAYLOAD_BYTES_MAX = 512 * 1024 * 1024
FRAME_BYTES_MAX = 256 * 1024
UNACKED_BYTES_MAX = 512 * 1024
CODE_BYTES_MAX = FRAME_BYTES_MAX * 3 // 4
"""A pickled function travels in one frame."""
HELLO_BYTES_MAX = 64 * 1024 * 1024
"""All frames of one hello together: outbox and spool with inline results."""
HELLOS_BYTES_MAX = 2 * HELLO_BYTES_MAX
"""All hellos together that are being read, or wait for their turn."""
MESSAGES_PER_FRAME_MAX = 4096
BLOB_CHUNK_BYTES = 256 * 1024

# Names and words a user chooses.
NAME_BYTES_MAX = 512
KEY_BYTES_MAX = 1024
TAGS_MAX = 32
META_MAX = 32
"""Names that one task may have notes under."""
META_BYTES_MAX = 4 * 1024
"""All names and values of a task's notes together."""
RESERVED_SIGNS = "+~\x00"
"""Not in the name of a queue or a tag: a requirement class is written with them."""
PRIORITY_MIN = -1000
PRIORITY_MAX = 1000
DELAY_MS_MAX = 10 * 365 * 24 * 3600 * 1000
ERROR_TEXT_BYTES_MAX = 16 * 1024
EVIDENCE_BYTES_MAX = 4 * 1024

# Budgets of one task (ADR 2). The event after the last one allowed ends the task.
LOSSES_MAX = 5
CRASHES_MAX = 3
OUT_OF_MEMORY_MAX = 1
ENVIRONMENT_MAX = 5
FREE_RETURNS_MAX = 100
UNHEARD_MAX = 5
"""Free lapses on silence alone: later ones are losses, because nobody knows what ran."""

# What one worker may offer; all its leases have to fit one hello and one welcome.
SLOTS_MAX = 1_000
CONCURRENT_SLOTS_MAX = 2_000
OFFER_WORDS_MAX = 1_000

# Coordinator.
SESSIONS_MAX = 4_096
"""Sockets that one coordinator converses on at a time, those included that have not said hello."""
INBOX_MESSAGES_MAX = 20_000
TURN_MESSAGES_MAX = 2_000
WINDOW_TASKS_MAX = 4_096
WINDOW_LOW_TASKS = 1_024
WINDOWS_BYTES_MAX = 32 * 1024 * 1024
"""What waits in the windows of all requirement classes together, as `dispatch.weight` weighs it.
A class gets its equal share, or two tasks, even where others hold all of it: together they stay
below twice this and two tasks for each class that is served."""
SIDING_TASKS_MAX = 32_768
"""Tasks noted beside their lines because workers lately could not run them, of all classes."""
OUTSTANDING_MAX = 1_024
"""Assignments that one worker may hold beyond what it runs."""
PAGE_ROWS_MAX = 10_000
AGEING_MS_PER_PRIORITY = 600_000
"""Ten minutes of waiting weigh as much as one level of priority."""

# Time.
LEASE_SECONDS = 10.0
HEARTBEAT_SECONDS = 1.0
OUTAGE_SECONDS_MIN = 3.0
"""The least that is given back for an outage, which lasts until a coordinator has listened so long:
time for each worker to come back."""
OUTAGES_IN_A_ROW_MAX = 2
"""So often in a row the time of an outage is given back to a worker that says no hello."""
CANCEL_GRACE_SECONDS = 5.0
AVOID_SECONDS_BASE = 1.0
AVOID_SECONDS_MAX = 60.0
AVOIDED_MAX = 8
"""Workers that one task avoids at a time; with a budget of five faults there are never more."""
PRUNED_KEPT_MS = 30 * 24 * 3600 * 1000
"""How long the ids of removed tasks are remembered."""
EMBEDDED_LINGER_SECONDS = 5.0
