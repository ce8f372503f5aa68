-- state.db, format version 1. One writer, the supervisor; PRAGMA application_id and user_version identify it.

-- One row. The writer keeps the counts, so that `status` never scans. Times are microseconds since the epoch (UTC).
CREATE TABLE counters (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    success        INTEGER NOT NULL DEFAULT 0,
    error          INTEGER NOT NULL DEFAULT 0,
    timeout        INTEGER NOT NULL DEFAULT 0,
    cancelled      INTEGER NOT NULL DEFAULT 0,
    unsealed       INTEGER NOT NULL DEFAULT 0,  -- successes that are in the inbox and in no segment yet
    last_finished  INTEGER,             -- end of the last attempt that finished
    retried_at     INTEGER,             -- the last `retry`
    paused         INTEGER NOT NULL DEFAULT 0,
    udf            INTEGER NOT NULL DEFAULT 1,  -- code version that pending tasks will run
    stop_reason    TEXT NOT NULL DEFAULT ''     -- why the last supervisor stopped before the end
) STRICT;
INSERT INTO counters (id) VALUES (1);

-- Successes of batches that are not yet in a segment: one Arrow IPC stream each.
CREATE TABLE inbox (
    id        INTEGER PRIMARY KEY,
    first     INTEGER NOT NULL,         -- lowest and highest task number in it
    last      INTEGER NOT NULL,
    rows      INTEGER NOT NULL,
    ranges    TEXT NOT NULL,            -- JSON: half-open ranges of task numbers
    kind      TEXT NOT NULL,            -- result type; blobs of one kind share segments
    outcomes  BLOB NOT NULL,
    crc       INTEGER NOT NULL          -- CRC-32 of the outcomes
) STRICT;

-- The files of results/. A file that is not listed here does not belong to the pool.
CREATE TABLE segments (
    id      INTEGER PRIMARY KEY,
    file    TEXT NOT NULL UNIQUE,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    rows    INTEGER NOT NULL,
    ranges  TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    footer  INTEGER                     -- CRC-32 of the Parquet footer; the pages bear checksums of their own
) STRICT;

-- Successes per code version.
CREATE TABLE successes_by_udf (
    udf   INTEGER PRIMARY KEY,
    rows  INTEGER NOT NULL
) STRICT;

-- Attempts that did not succeed. `current` marks those that are their task's present state.
CREATE TABLE failures (
    task       INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('error', 'timeout', 'crash')),
    current    INTEGER NOT NULL,
    type       TEXT NOT NULL,
    message    TEXT NOT NULL,
    file       TEXT,                    -- deepest frame in the user's code
    line       INTEGER,
    function   TEXT,
    traceback  INTEGER REFERENCES tracebacks (id),
    exception  BLOB,                    -- pickle, where it survives a round trip
    started    INTEGER,
    duration   INTEGER,                 -- nanoseconds
    worker     INTEGER,
    log_start  INTEGER,
    log_end    INTEGER,
    udf        INTEGER NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT;
CREATE INDEX current_failures ON failures (task) WHERE current = 1;

-- Tracebacks without their last line, each text once: a thousand like failures share one.
CREATE TABLE tracebacks (
    id    INTEGER PRIMARY KEY,
    text  TEXT NOT NULL UNIQUE
) STRICT;

-- The attempt that counts for tasks that ran (or will run) more than once; all others are at attempt 1.
CREATE TABLE attempts (
    task     INTEGER PRIMARY KEY,
    attempt  INTEGER NOT NULL,
    since    INTEGER NOT NULL           -- first attempt since `map` or the last `retry`: limits count from there
) STRICT;

-- Cancelled tasks, as half-open ranges.
CREATE TABLE cancelled (
    low   INTEGER PRIMARY KEY,
    high  INTEGER NOT NULL
) STRICT;

-- Requests of commands that were carried out; `answer` is JSON.
CREATE TABLE requests (
    id      TEXT PRIMARY KEY,
    at      INTEGER NOT NULL,
    action  TEXT NOT NULL,
    answer  TEXT NOT NULL
) STRICT;
