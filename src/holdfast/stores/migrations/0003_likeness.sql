-- What tells equal contents of a pickled submission from others, for those that have a key.
ALTER TABLE tasks ADD COLUMN likeness BLOB NOT NULL DEFAULT x'';
