-- What a submitter notes beside a task: for few tasks, so that the plain insert leaves it empty.
ALTER TABLE tasks ADD COLUMN meta TEXT NOT NULL DEFAULT '{}';         -- a JSON object of texts

-- What is wanted of a queue.
CREATE TABLE queues (
    name TEXT NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL
) WITHOUT ROWID;

-- Functions registered under an id of their own. A pickled one is in `code` under its digest.
CREATE TABLE functions (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    function TEXT NOT NULL,
    code BLOB NOT NULL,
    python TEXT NOT NULL,
    registered_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Ids of tasks that were removed: asked for, they are told apart from ids that never were.
CREATE TABLE pruned (
    id BLOB NOT NULL PRIMARY KEY,
    pruned_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX pruned_by_time ON pruned (pruned_ms);
