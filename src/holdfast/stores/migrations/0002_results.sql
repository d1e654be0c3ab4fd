-- Larger inline results, beside the row: an update that let its row grow by them would split pages.
-- `tasks.result` is then the number 0.
CREATE TABLE results (
    id BLOB NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
);
