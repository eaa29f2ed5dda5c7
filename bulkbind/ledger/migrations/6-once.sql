-- Version 6: each thing once. What a row or a binding shares with others has a number; the views
-- `rows` and `bindings` tell them in full, as the tables of version 5 did, and take changes.
-- Moments are milliseconds since 1970, a device id is an integer, and a trace id the number of its
-- process and a count, wherever that gives back the very text; otherwise they are the text.

-- They are empty: what a ledger of version 5 holds is written into a new one by `from-5.sql`.
DROP TABLE rows;
DROP TABLE bindings;

CREATE TABLE users (
  user    INTEGER PRIMARY KEY,
  user_id TEXT NOT NULL UNIQUE
);

-- A device as a user's: two users that name one machine code have two.
CREATE TABLE devices (
  device       INTEGER PRIMARY KEY,
  user         INTEGER NOT NULL REFERENCES users,
  machine_code TEXT NOT NULL,
  device_name  TEXT,                     -- as it was first named; see `names`
  device_os    TEXT
);
CREATE UNIQUE INDEX devices_code ON devices (machine_code, user);
CREATE INDEX devices_user ON devices (user);

-- What else devices are called, by rows or bindings; 0 is the name in `devices`.
CREATE TABLE names (
  device      INTEGER NOT NULL REFERENCES devices,
  name        INTEGER NOT NULL CHECK (name > 0),
  device_name TEXT,
  device_os   TEXT,
  PRIMARY KEY (device, name)
) WITHOUT ROWID;

-- id = run * 2^40 + position in the run: a run is a range, and the order is the manifest's.
CREATE TABLE stored_rows (
  id     INTEGER PRIMARY KEY,
  device INTEGER REFERENCES devices,     -- NULL: a rule is broken; see `broken`
  source INTEGER NOT NULL,
  line   INTEGER NOT NULL,
  name   INTEGER NOT NULL,               -- of the device, as this row gives it
  -- 0 bound, 1 skipped, 2 staged, 3 claimed, 4 in_doubt, 5 already_bound, 6 failed, 7 invalid,
  -- 8 duplicate, 9 moved, 10 withdrawn, 11 left_out; the first two are stored without a byte.
  -- staged -> claimed -> bound | already_bound | failed | in_doubt, or back to staged
  -- in_doubt -> bound | already_bound | staged | failed | skipped | withdrawn
  -- staged -> withdrawn
  status INTEGER NOT NULL CHECK (status BETWEEN 0 AND 11)
);
-- The few rows whose binding the server may hold without our knowing.
CREATE INDEX rows_open ON stored_rows (device) WHERE status IN (3, 4);

-- The operator's own cells, as JSON, until the row is known to be bound.
CREATE TABLE cells (
  id    INTEGER PRIMARY KEY,
  cells TEXT NOT NULL
);

-- Rows that break a rule, or that a condition leaves out.
CREATE TABLE broken (
  id           INTEGER PRIMARY KEY,
  problems     TEXT NOT NULL,            -- JSON
  user_id      TEXT,                     -- the values, unless the row has a device
  machine_code TEXT,
  device_name  TEXT,
  device_os    TEXT
);

-- Rows that may have been sent and have not ended.
CREATE TABLE sending (
  id        INTEGER PRIMARY KEY,
  sent_at   REAL,                        -- the first moment it may have been sent, server's clock
  attempts  INTEGER NOT NULL DEFAULT 0,
  doubts    INTEGER NOT NULL DEFAULT 0,
  verdict   TEXT,                        -- on the last request; NULL: none was heard
  silent_at REAL,                        -- since when nothing of ours is on its way, local clock
  misses    INTEGER NOT NULL DEFAULT 0,  -- trusted lists that lacked it
  missed_at REAL                         -- when the last of them was read, local clock
);

CREATE TABLE answers (
  answer      INTEGER PRIMARY KEY,
  code        TEXT NOT NULL,
  message     TEXT NOT NULL,
  http_status INTEGER
);
CREATE INDEX answers_words ON answers (code, message);

CREATE TABLE traces (
  trace INTEGER PRIMARY KEY,
  word  TEXT NOT NULL UNIQUE             -- the part of a process, or a whole id of another form
);

-- How rows ended. A skipped row without one has what its binding said when it was staged.
CREATE TABLE outcomes (
  id          INTEGER PRIMARY KEY,
  sent_at     REAL,
  attempts    INTEGER NOT NULL,
  device_id,
  create_time,
  answer      INTEGER REFERENCES answers,
  trace       INTEGER REFERENCES traces,
  traced      INTEGER,                   -- the count of the trace id
  settled_at
);

-- What is special about a row.
CREATE TABLE remarks (
  id           INTEGER PRIMARY KEY,
  duplicate_of INTEGER,                  -- the first row of this run for the same device
  changes      TEXT,                     -- what cleaning did to its values; NULL: nothing
  doubts       INTEGER NOT NULL,
  repeats      INTEGER NOT NULL,         -- posted again although it was bound
  detail       TEXT NOT NULL
);

-- What the ledger knows as bound, whoever bound it.
CREATE TABLE stored_bindings (
  device      INTEGER PRIMARY KEY REFERENCES devices,
  device_id,
  create_time,
  since       NOT NULL,
  run         INTEGER NOT NULL REFERENCES runs,
  name        INTEGER NOT NULL
);

-- What was bound before it changed or was unbound: for it, rows of runs up to `until` were skipped,
-- unless an earlier entry tells what they were skipped for.
CREATE TABLE former_bindings (
  device      INTEGER NOT NULL REFERENCES devices,
  until       INTEGER NOT NULL REFERENCES runs,
  device_id,
  create_time,
  since       NOT NULL,
  run         INTEGER NOT NULL REFERENCES runs,
  name        INTEGER NOT NULL,
  PRIMARY KEY (device, until)
) WITHOUT ROWID;
-- What was noticed while a manifest was read; a run without them was staged by an older version.
CREATE TABLE notices (
  run    INTEGER NOT NULL REFERENCES runs,
  source INTEGER NOT NULL,
  texts  TEXT NOT NULL,                  -- JSON: a list
  PRIMARY KEY (run, source)
) WITHOUT ROWID;

-- Of the run that is being staged: the first row of each device.
CREATE TABLE named (
  device INTEGER PRIMARY KEY,
  id     INTEGER NOT NULL
);

CREATE TRIGGER bindings_changed BEFORE UPDATE ON stored_bindings
  WHEN (OLD.device_id, OLD.create_time, OLD.since, OLD.run, OLD.name)
       IS NOT (NEW.device_id, NEW.create_time, NEW.since, NEW.run, NEW.name)
BEGIN
  INSERT OR IGNORE INTO former_bindings
  SELECT OLD.device, last, OLD.device_id, OLD.create_time, OLD.since, OLD.run, OLD.name
    FROM (SELECT max(run) AS last FROM runs) WHERE last > OLD.run;
END;
CREATE TRIGGER bindings_deleted BEFORE DELETE ON stored_bindings
BEGIN
  INSERT OR IGNORE INTO former_bindings
  SELECT OLD.device, last, OLD.device_id, OLD.create_time, OLD.since, OLD.run, OLD.name
    FROM (SELECT max(run) AS last FROM runs) WHERE last > OLD.run;
END;

-- --- as people and queries see it ---------------------------------------------------------------

CREATE VIEW rows AS
SELECT r.id, r.id >> 40 AS run, r.source, r.line,
       CASE WHEN r.device IS NULL THEN k.user_id ELSE u.user_id END AS user_id,
       CASE WHEN r.device IS NULL THEN k.machine_code ELSE d.machine_code END AS machine_code,
       CASE WHEN r.device IS NULL THEN k.device_name WHEN r.name THEN n.device_name
            ELSE d.device_name END AS device_name,
       CASE WHEN r.device IS NULL THEN k.device_os WHEN r.name THEN n.device_os
            ELSE d.device_os END AS device_os,
       k.problems, x.duplicate_of, c.cells,
       CASE r.status WHEN 0 THEN 'bound' WHEN 1 THEN 'skipped' WHEN 2 THEN 'staged'
       WHEN 3 THEN 'claimed'
            WHEN 4 THEN 'in_doubt' WHEN 5 THEN 'already_bound' WHEN 6 THEN 'failed' WHEN 7 THEN
            'invalid' WHEN 8 THEN 'duplicate' WHEN 9 THEN 'moved'
            WHEN 10 THEN 'withdrawn'
            WHEN 11 THEN 'left_out' END AS status,
       coalesce(o.sent_at, s.sent_at) AS sent_at,
       coalesce(s.attempts, o.attempts, 0) AS attempts,
       coalesce(s.doubts, x.doubts, 0) AS doubts,
       coalesce(x.repeats, 0) AS repeats,
       coalesce(CAST(coalesce(o.device_id, f.device_id, b.device_id) AS TEXT), '') AS device_id,
       CASE typeof(coalesce(o.create_time, f.create_time, b.create_time)) WHEN 'integer'
            THEN strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(o.create_time, f.create_time,
                          b.create_time) / 1000.0, 'unixepoch')
            ELSE coalesce(o.create_time, f.create_time, b.create_time, '') END AS create_time,
       a.http_status, coalesce(a.code, '') AS code, coalesce(a.message, '') AS message,
       coalesce(t.word || CASE WHEN o.traced IS NULL THEN ''
                          ELSE substr('0000000000000000' || o.traced, -16) END, '') AS trace_id,
       CASE typeof(o.settled_at) WHEN 'integer'
            THEN strftime('%Y-%m-%dT%H:%M:%fZ', o.settled_at / 1000.0, 'unixepoch')
            ELSE o.settled_at END AS settled_at,
       CASE WHEN o.id NOT NULL OR r.status <> 1 THEN coalesce(x.detail, '')
            ELSE 'bound since ' || CASE typeof(coalesce(f.since, b.since)) WHEN 'integer'
                 THEN strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(f.since, b.since) / 1000.0,
                               'unixepoch')
                 ELSE coalesce(f.since, b.since) END
                 || ' by run ' || (SELECT run_id FROM runs WHERE run = coalesce(f.run, b.run))
                 || CASE WHEN r.name = coalesce(f.name, b.name) THEN ''
                         ELSE '; under another name or OS: --rebind sends these' END
       END AS detail,
       s.verdict, s.silent_at, coalesce(s.misses, 0) AS misses, s.missed_at, x.changes
  FROM stored_rows r
  LEFT JOIN devices d ON d.device = r.device
  LEFT JOIN users u ON u.user = d.user
  LEFT JOIN names n ON n.device = r.device AND n.name = r.name
  LEFT JOIN broken k ON k.id = r.id
  LEFT JOIN cells c ON c.id = r.id
  LEFT JOIN sending s ON s.id = r.id
  LEFT JOIN remarks x ON x.id = r.id
  LEFT JOIN outcomes o ON o.id = r.id
  LEFT JOIN answers a ON a.answer = o.answer
  LEFT JOIN traces t ON t.trace = o.trace
  -- What a skipped row without an outcome of its own was skipped for: a binding that has changed
  -- or gone since, or else the present one.
  LEFT JOIN former_bindings f
    ON f.device = CASE WHEN r.status = 1 AND o.id IS NULL THEN r.device END
   AND f.until = (SELECT min(until) FROM former_bindings
                   WHERE device = r.device AND until >= r.id >> 40)
  LEFT JOIN stored_bindings b
    ON b.device = CASE WHEN r.status = 1 AND o.id IS NULL AND f.device IS NULL THEN r.device END;

CREATE TRIGGER rows_insert INSTEAD OF INSERT ON rows
BEGIN
  INSERT OR IGNORE INTO users (user_id)
  SELECT NEW.user_id WHERE NEW.problems IS NULL;
  INSERT OR IGNORE INTO devices (user, machine_code, device_name, device_os)
  SELECT user, NEW.machine_code, NEW.device_name, NEW.device_os
    FROM users WHERE user_id = NEW.user_id AND NEW.problems IS NULL;
  INSERT INTO names (device, name, device_name, device_os)
  SELECT d.device, 1 + (SELECT coalesce(max(name), 0) FROM names WHERE device = d.device),
         NEW.device_name, NEW.device_os
    FROM devices d JOIN users u ON u.user = d.user
   WHERE u.user_id = NEW.user_id AND d.machine_code = NEW.machine_code AND NEW.problems IS NULL
     AND (d.device_name, d.device_os) IS NOT (NEW.device_name, NEW.device_os)
     AND NOT EXISTS (SELECT 1 FROM names n WHERE n.device = d.device
                        AND (n.device_name, n.device_os) IS (NEW.device_name, NEW.device_os));
  INSERT INTO stored_rows (id, device, source, line, name, status)
  SELECT NEW.id, NULL, NEW.source, NEW.line, 0, 7 WHERE NEW.problems NOT NULL
   UNION ALL
  SELECT NEW.id, d.device, NEW.source, NEW.line, coalesce((
         SELECT n.name FROM names n WHERE n.device = d.device
            AND (n.device_name, n.device_os) IS (NEW.device_name, NEW.device_os)), 0), 2
    FROM devices d JOIN users u ON u.user = d.user
   WHERE u.user_id = NEW.user_id AND d.machine_code = NEW.machine_code AND NEW.problems IS NULL;
  INSERT INTO broken (id, problems, user_id, machine_code, device_name, device_os)
  SELECT NEW.id, NEW.problems, NEW.user_id, NEW.machine_code, NEW.device_name, NEW.device_os
   WHERE NEW.problems NOT NULL;
  UPDATE rows
     SET (duplicate_of, cells, status, sent_at, attempts, doubts, repeats, device_id, create_time,
          http_status, code, message, trace_id, settled_at, detail, verdict, silent_at, misses,
          missed_at, changes) =
         (SELECT NEW.duplicate_of, NEW.cells, NEW.status, NEW.sent_at, coalesce(NEW.attempts, 0),
                 coalesce(NEW.doubts, 0), coalesce(NEW.repeats, 0), coalesce(NEW.device_id, ''),
                 coalesce(NEW.create_time, ''), NEW.http_status, coalesce(NEW.code, ''),
                 coalesce(NEW.message, ''), coalesce(NEW.trace_id, ''), NEW.settled_at,
                 coalesce(NEW.detail, ''), NEW.verdict, NEW.silent_at, coalesce(NEW.misses, 0),
                 NEW.missed_at, NEW.changes)
   WHERE id = NEW.id;
END;

CREATE TRIGGER rows_update INSTEAD OF UPDATE ON rows
BEGIN
  UPDATE stored_rows
     SET status = CASE NEW.status WHEN 'bound' THEN 0 WHEN 'skipped' THEN 1
     WHEN 'staged' THEN 2 WHEN 'claimed' THEN
                  3 WHEN 'in_doubt' THEN 4 WHEN 'already_bound' THEN 5 WHEN 'failed' THEN 6 WHEN
                  'invalid' THEN 7 WHEN 'duplicate' THEN 8 WHEN 'moved' THEN 9
                  WHEN 'withdrawn' THEN 10
            WHEN 'left_out' THEN 11 END
   WHERE id = OLD.id;
  DELETE FROM cells WHERE id = OLD.id AND NEW.cells IS NULL;
  INSERT OR REPLACE INTO cells (id, cells)
  SELECT OLD.id, NEW.cells WHERE NEW.cells IS NOT OLD.cells AND NEW.cells NOT NULL;
  DELETE FROM broken WHERE id = OLD.id AND NEW.problems IS NULL;
  INSERT INTO broken (id, problems) SELECT OLD.id, NEW.problems WHERE NEW.problems NOT NULL
      ON CONFLICT DO UPDATE SET problems = excluded.problems;
  DELETE FROM sending WHERE id = OLD.id;
  INSERT INTO sending (id, sent_at, attempts, doubts, verdict, silent_at, misses, missed_at)
  SELECT OLD.id, NEW.sent_at, NEW.attempts, NEW.doubts, NEW.verdict, NEW.silent_at, NEW.misses,
         NEW.missed_at
   WHERE NEW.status IN ('claimed', 'in_doubt')
      OR NEW.status = 'staged' AND (NEW.sent_at NOT NULL OR NEW.attempts OR NEW.doubts);
  DELETE FROM remarks WHERE id = OLD.id;
  INSERT INTO remarks (id, duplicate_of, changes, doubts, repeats, detail)
  SELECT OLD.id, NEW.duplicate_of, NEW.changes, NEW.doubts, NEW.repeats, NEW.detail
   WHERE NEW.duplicate_of NOT NULL OR NEW.changes NOT NULL OR NEW.doubts OR NEW.repeats
      OR NEW.detail <> '';
  INSERT INTO answers (code, message, http_status)
  SELECT NEW.code, NEW.message, NEW.http_status
   WHERE (NEW.code <> '' OR NEW.message <> '' OR NEW.http_status NOT NULL)
     AND NOT EXISTS (SELECT 1 FROM answers WHERE code = NEW.code AND message = NEW.message
                        AND http_status IS NEW.http_status);
  INSERT OR IGNORE INTO traces (word)
  SELECT CASE length(NEW.trace_id) WHEN 58 THEN substr(NEW.trace_id, 1, 42)
              ELSE NEW.trace_id END
   WHERE NEW.trace_id <> '';
  DELETE FROM outcomes WHERE id = OLD.id;
  INSERT INTO outcomes (id, sent_at, attempts, device_id, create_time, answer, trace, traced,
                        settled_at)
  SELECT OLD.id,
         CASE WHEN NEW.status NOT IN ('staged', 'claimed', 'in_doubt') THEN NEW.sent_at END,
         CASE WHEN NEW.status IN ('staged', 'claimed', 'in_doubt') THEN 0 ELSE NEW.attempts END,
         CASE WHEN CAST(CAST(NEW.device_id AS INTEGER) AS TEXT) = NEW.device_id
              THEN CAST(NEW.device_id AS INTEGER)
              WHEN NEW.device_id <> '' THEN NEW.device_id END,
         CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', (strftime('%s', NEW.create_time) * 1000
         + substr(NEW.create_time, 21, 3))
                       / 1000.0, 'unixepoch') = NEW.create_time
              THEN strftime('%s', NEW.create_time) * 1000 + substr(NEW.create_time, 21, 3)
              WHEN NEW.create_time <> '' THEN NEW.create_time END,
         (SELECT answer FROM answers WHERE code = NEW.code AND message = NEW.message
             AND http_status IS NEW.http_status),
         (SELECT trace FROM traces
           WHERE word = CASE length(NEW.trace_id) WHEN 58 THEN substr(NEW.trace_id, 1, 42)
                             ELSE NEW.trace_id END),
         CASE WHEN length(NEW.trace_id) = 58
              THEN iif(substr(NEW.trace_id, 43) GLOB '*[^0-9]*',
                       CAST(ltrim(substr(NEW.trace_id, 43), '0') AS BLOB),
                       ltrim(substr(NEW.trace_id, 43), '0')) END,
         CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', (strftime('%s', NEW.settled_at) * 1000
         + substr(NEW.settled_at, 21, 3))
                       / 1000.0, 'unixepoch') = NEW.settled_at
              THEN strftime('%s', NEW.settled_at) * 1000 + substr(NEW.settled_at, 21, 3)
              WHEN NEW.settled_at <> '' THEN NEW.settled_at END
   WHERE NEW.status = 'skipped' OR NEW.device_id <> '' OR NEW.create_time <> '' OR NEW.code <> ''
      OR NEW.message <> '' OR NEW.http_status NOT NULL OR NEW.trace_id <> ''
      OR NEW.settled_at NOT NULL
      OR NEW.status NOT IN ('staged', 'claimed', 'in_doubt')
         AND (NEW.attempts OR NEW.sent_at NOT NULL);
END;

CREATE TRIGGER rows_delete INSTEAD OF DELETE ON rows
BEGIN
  DELETE FROM stored_rows WHERE id = OLD.id;
  DELETE FROM broken WHERE id = OLD.id;
  DELETE FROM cells WHERE id = OLD.id;
  DELETE FROM sending WHERE id = OLD.id;
  DELETE FROM remarks WHERE id = OLD.id;
  DELETE FROM outcomes WHERE id = OLD.id;
END;

CREATE VIEW bindings AS
SELECT u.user_id, d.machine_code, coalesce(CAST(b.device_id AS TEXT), '') AS device_id,
       CASE typeof(b.create_time) WHEN 'integer'
            THEN strftime('%Y-%m-%dT%H:%M:%fZ', b.create_time / 1000.0, 'unixepoch')
            ELSE coalesce(b.create_time, '') END AS create_time,
       CASE WHEN b.name THEN n.device_name ELSE d.device_name END AS device_name,
       CASE WHEN b.name THEN n.device_os ELSE d.device_os END AS device_os,
       CASE typeof(b.since) WHEN 'integer'
            THEN strftime('%Y-%m-%dT%H:%M:%fZ', b.since / 1000.0, 'unixepoch')
            ELSE b.since END AS since,
       b.run
  FROM stored_bindings b
  JOIN devices d ON d.device = b.device
  JOIN users u ON u.user = d.user
  LEFT JOIN names n ON n.device = b.device AND n.name = b.name;

CREATE TRIGGER bindings_delete INSTEAD OF DELETE ON bindings
BEGIN
  DELETE FROM stored_bindings
   WHERE device = (SELECT d.device FROM devices d JOIN users u ON u.user = d.user
                    WHERE u.user_id = OLD.user_id AND d.machine_code = OLD.machine_code);
END;

