-- The ledger, version 1. One file per endpoint, shared by all runs against it.
-- Moments: *_at as ISO 8601 UTC text by the local clock; sent_at as seconds since 1970 by the
-- server's clock.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE runs (
  run           INTEGER PRIMARY KEY,
  run_id        TEXT NOT NULL UNIQUE,
  state         TEXT NOT NULL
                CHECK (state IN ('staging', 'ready', 'confirmed', 'sending', 'done', 'stopped')),
  digest        TEXT NOT NULL,           -- of the manifests: the same digest goes on under the same id
  created_at    TEXT NOT NULL,
  confirmed_at  TEXT,
  ended_at      TEXT,
  stop_reason   TEXT,
  superseded_by INTEGER REFERENCES runs, -- the run that took its place; its staged rows are withdrawn
  operator      TEXT NOT NULL,
  host          TEXT NOT NULL,
  pid           INTEGER NOT NULL,
  version       TEXT NOT NULL,
  settings      TEXT NOT NULL,           -- JSON, without secrets
  facts         TEXT NOT NULL DEFAULT '{}' -- JSON: requests, time spent, pace learned
);

CREATE TABLE sources (
  run    INTEGER NOT NULL REFERENCES runs,
  source INTEGER NOT NULL,               -- 0-based, in the order given
  form   TEXT NOT NULL,                  -- JSON: name, format, encoding, bom, delimiter, header
  PRIMARY KEY (run, source)
) WITHOUT ROWID;

-- id = run * 2^40 + position in the run: a run is a range, and the order is the manifest's.
CREATE TABLE rows (
  id           INTEGER PRIMARY KEY,
  run          INTEGER NOT NULL,
  source       INTEGER NOT NULL,
  line         INTEGER NOT NULL,
  user_id      TEXT,
  machine_code TEXT,
  device_name  TEXT,
  device_os    TEXT,
  problems     TEXT,                     -- JSON; NULL where every rule is kept
  duplicate_of INTEGER,                  -- the first row of this run for the same device
  cells        TEXT,                     -- JSON: the operator's own cells, until the row is bound
  -- staged -> claimed -> bound | already_bound | failed | in_doubt, or back to staged
  -- in_doubt -> bound | already_bound | staged | failed | skipped | withdrawn
  -- staged -> withdrawn
  status       TEXT NOT NULL
               CHECK (status IN ('staged', 'claimed', 'bound', 'already_bound', 'failed', 'in_doubt',
                                 'invalid', 'duplicate', 'skipped', 'moved', 'withdrawn')),
  sent_at      REAL,                     -- the first moment it may have been sent
  attempts     INTEGER NOT NULL DEFAULT 0,
  doubts       INTEGER NOT NULL DEFAULT 0,
  repeats      INTEGER NOT NULL DEFAULT 0, -- posted again although it was bound
  device_id    TEXT NOT NULL DEFAULT '',
  create_time  TEXT NOT NULL DEFAULT '',
  http_status  INTEGER,
  code         TEXT NOT NULL DEFAULT '',
  message      TEXT NOT NULL DEFAULT '',
  trace_id     TEXT NOT NULL DEFAULT '',
  settled_at   TEXT,
  detail       TEXT NOT NULL DEFAULT '',
  CHECK ((status = 'invalid') = (problems IS NOT NULL)),
  CHECK ((status = 'duplicate') = (duplicate_of IS NOT NULL))
);
-- One row of a run per device; says at once whether a new row is a duplicate.
CREATE UNIQUE INDEX rows_device ON rows (run, user_id, machine_code)
  WHERE problems IS NULL AND duplicate_of IS NULL;
-- The few rows whose binding the server may hold without our knowing.
CREATE INDEX rows_open ON rows (user_id, machine_code) WHERE status IN ('claimed', 'in_doubt');

-- What the ledger knows as bound, whoever bound it.
CREATE TABLE bindings (
  user_id      TEXT NOT NULL,
  machine_code TEXT NOT NULL,
  device_id    TEXT NOT NULL,
  create_time  TEXT NOT NULL,
  device_name  TEXT,
  device_os    TEXT,
  since        TEXT NOT NULL,
  run          INTEGER NOT NULL REFERENCES runs,
  PRIMARY KEY (user_id, machine_code)
) WITHOUT ROWID;
CREATE INDEX bindings_code ON bindings (machine_code, user_id);

-- Every attempt that was not simply accepted.
CREATE TABLE attempts (
  row         INTEGER NOT NULL,
  sent_at     REAL NOT NULL,
  took_s      REAL NOT NULL,
  verdict     TEXT NOT NULL,
  http_status INTEGER,
  code        TEXT NOT NULL,
  message     TEXT NOT NULL,
  trace_id    TEXT NOT NULL
);
CREATE INDEX attempts_row ON attempts (row);
