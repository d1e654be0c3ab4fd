-- One row a task, its newest attempt in the row. A rowid table: with UUIDv7 ids both layouts append,
-- but a WITHOUT ROWID table spills rows above about 1 KB to pages of their own.
CREATE TABLE tasks (
    id BLOB NOT NULL PRIMARY KEY,
    -- What was asked; never changes.
    function TEXT NOT NULL,
    encoding INTEGER NOT NULL,
    payload BLOB,                                   -- NULL: the bytes are in `bodies`
    payload_digest BLOB NOT NULL,
    payload_bytes INTEGER NOT NULL,
    submitted_ms INTEGER NOT NULL,
    asked_due_ms INTEGER NOT NULL,
    queue TEXT NOT NULL,
    tags TEXT NOT NULL,                             -- a JSON array
    priority INTEGER NOT NULL,
    key TEXT,                                       -- NULL: none
    code BLOB NOT NULL,
    python TEXT NOT NULL,
    concurrent INTEGER NOT NULL,
    needs TEXT NOT NULL,                            -- the requirement class
    rank INTEGER NOT NULL,                          -- the place in line
    -- How far it is. Every update writes every column from here on.
    version INTEGER NOT NULL,
    state INTEGER NOT NULL,
    wanted INTEGER NOT NULL,
    wish INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,                        -- 0: claimable now
    fence INTEGER NOT NULL,
    token BLOB NOT NULL,
    lease INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    worker TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    -- From here on the plain insert binds nothing.
    started_ms INTEGER NOT NULL DEFAULT 0,
    ended_ms INTEGER NOT NULL DEFAULT 0,
    reason INTEGER NOT NULL DEFAULT 0,
    result_encoding INTEGER NOT NULL DEFAULT 0,     -- 0: no result
    result BLOB NOT NULL DEFAULT x'',
    result_digest BLOB NOT NULL DEFAULT x'',
    result_bytes INTEGER NOT NULL DEFAULT 0,
    -- From here on the plain update writes constants.
    retries INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    out_of_memory INTEGER NOT NULL DEFAULT 0,
    environment INTEGER NOT NULL DEFAULT 0,
    free_returns INTEGER NOT NULL DEFAULT 0,
    unheard INTEGER NOT NULL DEFAULT 0,
    freed BLOB NOT NULL DEFAULT x'',                -- MessagePack; empty: none
    mark INTEGER NOT NULL DEFAULT 0,
    crash_mark INTEGER NOT NULL DEFAULT 0,
    saved_number INTEGER NOT NULL DEFAULT 0,
    saved_digest BLOB NOT NULL DEFAULT x'',
    avoid TEXT NOT NULL DEFAULT '',
    avoid_until_ms INTEGER NOT NULL DEFAULT 0,
    failure BLOB NOT NULL DEFAULT x''               -- MessagePack; empty: none
);
CREATE INDEX tasks_claimable ON tasks (needs, rank, id) WHERE state = 0 AND due_ms = 0;
CREATE INDEX tasks_due ON tasks (due_ms, id) WHERE state = 0 AND due_ms > 0;
CREATE INDEX tasks_running ON tasks (id) WHERE state = 1;
CREATE INDEX tasks_ended ON tasks (state, ended_ms) WHERE state >= 2;
CREATE UNIQUE INDEX tasks_key ON tasks (key) WHERE key IS NOT NULL;

-- Larger payloads, beside the row: an update rewrites its whole row, and must not rewrite these.
CREATE TABLE bodies (
    id BLOB NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE attempts (
    task BLOB NOT NULL,
    fence INTEGER NOT NULL,
    token BLOB NOT NULL,
    worker TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    ended TEXT NOT NULL,
    PRIMARY KEY (task, fence)
) WITHOUT ROWID;

CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    fence INTEGER NOT NULL,
    worker TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX events_task ON events (task, number);

CREATE TABLE workers (
    identity TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    facts BLOB NOT NULL,
    said_ms INTEGER NOT NULL,
    outages INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE code (
    digest BLOB NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
);

-- One row: who this store is, the newest committed turn, the number of its schema.
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    store TEXT NOT NULL,
    timeline INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    schema INTEGER NOT NULL
);
