-- Bindings that are taken back: those of a run (`undo`), or a device's older ones (`run --move`).

CREATE TABLE unbindings (
  row          INTEGER NOT NULL,         -- of rows: the row undone, or the row that moves the device
  kind         TEXT NOT NULL CHECK (kind IN ('undo', 'move')),
  user_id      TEXT NOT NULL,            -- whose binding it is: a move's is another than the row's
  machine_code TEXT NOT NULL,
  device_id    TEXT NOT NULL,            -- only this binding is unbound
  -- staged -> claimed (a request may have left) -> unbound | already_gone | changed | failed
  -- staged -> already_gone | changed | failed
  status       TEXT NOT NULL DEFAULT 'staged'
               CHECK (status IN ('staged', 'claimed', 'unbound', 'already_gone', 'changed',
                                 'failed')),
  attempts     INTEGER NOT NULL DEFAULT 0,
  http_status  INTEGER,
  code         TEXT NOT NULL DEFAULT '',
  message      TEXT NOT NULL DEFAULT '',
  trace_id     TEXT NOT NULL DEFAULT '',
  settled_at   TEXT,
  detail       TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (row, kind, user_id)
) WITHOUT ROWID;
-- What is left to do, by user: one list call tells of all of a user's devices.
CREATE INDEX unbindings_open ON unbindings (kind, user_id, row)
  WHERE status IN ('staged', 'claimed');

-- One for each run that was undone; begun again, it goes on.
CREATE TABLE undos (
  run         INTEGER PRIMARY KEY REFERENCES runs,
  state       TEXT NOT NULL CHECK (state IN ('confirmed', 'sending', 'done', 'stopped')),
  created_at  TEXT NOT NULL,
  ended_at    TEXT,
  stop_reason TEXT,
  operator    TEXT NOT NULL,
  host        TEXT NOT NULL,
  pid         INTEGER NOT NULL,
  version     TEXT NOT NULL,
  facts       TEXT NOT NULL DEFAULT '{}' -- JSON: requests, time spent
);
