-- What a ledger of version 5, attached as `old`, holds, for an empty one of version 6.

INSERT INTO meta SELECT * FROM old.meta;
INSERT INTO runs SELECT * FROM old.runs;
INSERT INTO sources SELECT * FROM old.sources;
INSERT INTO attempts SELECT * FROM old.attempts ORDER BY rowid;
INSERT INTO unbindings SELECT * FROM old.unbindings;
INSERT INTO undos SELECT * FROM old.undos;

INSERT INTO users (user_id)
SELECT user_id FROM old.rows WHERE problems IS NULL UNION SELECT user_id FROM old.bindings;
-- What is skipped is nearly always a device that another row or a binding names.
INSERT OR IGNORE INTO devices (user, machine_code, device_name, device_os)
SELECT u.user, r.machine_code, r.device_name, r.device_os
  FROM old.rows r CROSS JOIN users u ON u.user_id = r.user_id
 WHERE r.problems IS NULL AND r.duplicate_of IS NULL AND r.status <> 'skipped' ORDER BY r.id;
INSERT OR IGNORE INTO devices (user, machine_code, device_name, device_os)
SELECT u.user, b.machine_code, b.device_name, b.device_os
  FROM old.bindings b CROSS JOIN users u ON u.user_id = b.user_id
 WHERE (b.user_id, b.machine_code) IN ( -- in the order of the indexes by machine code
       SELECT k.user_id, k.machine_code FROM old.bindings k CROSS JOIN users o ON o.user_id = k.user_id
        WHERE NOT EXISTS (SELECT 1 FROM devices d
                           WHERE d.machine_code = k.machine_code AND d.user = o.user));
-- Until it has one, the name of a row that names its device otherwise is -1.
INSERT INTO stored_rows (id, device, source, line, name, status)
SELECT r.id, d.device, r.source, r.line,
       (d.device IS NULL OR (d.device_name, d.device_os) IS (r.device_name, r.device_os)) - 1,
       CASE r.status WHEN 'bound' THEN 0 WHEN 'skipped' THEN 1 WHEN 'staged' THEN 2
       WHEN 'claimed' THEN 3
            WHEN 'in_doubt' THEN 4 WHEN 'already_bound' THEN 5 WHEN 'failed' THEN 6 WHEN 'invalid'
            THEN 7 WHEN 'duplicate' THEN 8 WHEN 'moved' THEN 9
                  WHEN 'withdrawn' THEN 10
            WHEN 'left_out' THEN 11 END
  FROM old.rows r
  LEFT JOIN users u ON u.user_id = r.user_id AND r.problems IS NULL
  LEFT JOIN devices d ON d.machine_code = r.machine_code AND d.user = u.user
 ORDER BY r.id;
-- Skipped rows of devices whose bindings are gone, and duplicates, which may be those of another
-- user's row, which counts.
INSERT OR IGNORE INTO devices (user, machine_code, device_name, device_os)
SELECT u.user, r.machine_code, r.device_name, r.device_os
  FROM stored_rows s CROSS JOIN old.rows r ON r.id = s.id
 CROSS JOIN users u ON u.user_id = r.user_id
 WHERE s.device IS NULL AND r.problems IS NULL ORDER BY s.id;
UPDATE stored_rows SET (device, name) = (
       SELECT d.device, ((d.device_name, d.device_os) IS (r.device_name, r.device_os)) - 1
         FROM old.rows r CROSS JOIN users u ON u.user_id = r.user_id
        CROSS JOIN devices d ON d.machine_code = r.machine_code AND d.user = u.user
        WHERE r.id = stored_rows.id)
 WHERE device IS NULL AND status NOT IN (7, 11);
-- Bindings by device, which has them found much faster than by two texts.
CREATE TEMP TABLE bound (
  device INTEGER PRIMARY KEY, device_id, create_time, since, run, device_name, device_os, is_other
);
INSERT INTO bound
SELECT d.device, b.device_id, b.create_time, b.since, b.run, b.device_name, b.device_os,
       (d.device_name, d.device_os) IS NOT (b.device_name, b.device_os)
  FROM devices d CROSS JOIN users u ON u.user = d.user
 CROSS JOIN old.bindings b ON b.user_id = u.user_id AND b.machine_code = d.machine_code
 ORDER BY d.device;
INSERT INTO names (device, name, device_name, device_os)
SELECT device, row_number() OVER (PARTITION BY device), device_name, device_os
  FROM (SELECT s.device, r.device_name, r.device_os
          FROM stored_rows s CROSS JOIN old.rows r ON r.id = s.id WHERE s.name < 0
         UNION SELECT device, device_name, device_os FROM bound WHERE is_other);
UPDATE stored_rows
   SET name = (
       SELECT n.name FROM old.rows r
        CROSS JOIN names n ON n.device = stored_rows.device
          AND (n.device_name, n.device_os) IS (r.device_name, r.device_os)
        WHERE r.id = stored_rows.id)
 WHERE name < 0;
INSERT INTO cells (id, cells) SELECT id, cells FROM old.rows WHERE cells NOT NULL ORDER BY id;
INSERT INTO broken (id, problems, user_id, machine_code, device_name, device_os)
SELECT id, problems, user_id, machine_code, device_name, device_os
  FROM old.rows WHERE problems NOT NULL ORDER BY id;
INSERT INTO sending (id, sent_at, attempts, doubts, verdict, silent_at, misses, missed_at)
SELECT id, sent_at, attempts, doubts, verdict, silent_at, misses, missed_at
  FROM old.rows
 WHERE status IN ('claimed', 'in_doubt')
    OR status = 'staged' AND (sent_at NOT NULL OR attempts OR doubts)
 ORDER BY id;
-- Skipped rows that say what their bindings still say.
CREATE TEMP TABLE alike (id INTEGER PRIMARY KEY);
INSERT INTO alike (id)
SELECT r.id
  FROM stored_rows s CROSS JOIN old.rows r ON r.id = s.id
 CROSS JOIN bound b ON b.device = s.device CROSS JOIN runs n ON n.run = b.run
 WHERE s.status = 1 AND r.device_id = b.device_id AND r.create_time = b.create_time
   AND r.detail = 'bound since ' || b.since || ' by run ' || n.run_id
       || CASE WHEN (r.device_name, r.device_os) IS (b.device_name, b.device_os) THEN ''
               ELSE '; under another name or OS: --rebind sends these' END
   AND r.sent_at IS NULL AND r.settled_at IS NULL AND NOT r.attempts AND NOT r.doubts
   AND NOT r.repeats AND r.http_status IS NULL AND r.code = '' AND r.message = ''
   AND r.trace_id = ''
 ORDER BY s.id;
INSERT INTO remarks (id, duplicate_of, changes, doubts, repeats, detail)
SELECT id, duplicate_of, changes, doubts, repeats,
       CASE WHEN id IN (SELECT id FROM alike) THEN '' ELSE detail END
  FROM old.rows
 WHERE duplicate_of NOT NULL OR changes NOT NULL OR doubts OR repeats
    OR detail <> '' AND id NOT IN (SELECT id FROM alike)
 ORDER BY id;
INSERT INTO answers (code, message, http_status)
SELECT DISTINCT code, message, http_status
  FROM old.rows WHERE code <> '' OR message <> '' OR http_status NOT NULL;
INSERT OR IGNORE INTO traces (word)
SELECT DISTINCT CASE length(trace_id) WHEN 58 THEN substr(trace_id, 1, 42) ELSE trace_id END
  FROM old.rows WHERE trace_id <> '';
INSERT INTO outcomes (id, sent_at, attempts, device_id, create_time, answer, trace, traced,
                      settled_at)
SELECT r.id, CASE WHEN r.status NOT IN ('staged', 'claimed', 'in_doubt') THEN r.sent_at END,
       CASE WHEN r.status IN ('staged', 'claimed', 'in_doubt') THEN 0 ELSE r.attempts END,
       CASE WHEN CAST(CAST(r.device_id AS INTEGER) AS TEXT) = r.device_id
            THEN CAST(r.device_id AS INTEGER) WHEN r.device_id <> '' THEN r.device_id END,
       CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', r.create_time) = r.create_time
            THEN unixepoch(r.create_time) * 1000 + substr(r.create_time, 21, 3)
            WHEN r.create_time <> '' THEN r.create_time END,
       (SELECT a.answer FROM answers a WHERE a.code = r.code AND a.message = r.message
           AND a.http_status IS r.http_status),
       (SELECT t.trace FROM traces t
         WHERE t.word = CASE length(r.trace_id) WHEN 58 THEN substr(r.trace_id, 1, 42)
                             ELSE r.trace_id END),
       -- As bytes where it is no number: a text like 1e5 would become another one.
       CASE WHEN length(r.trace_id) <> 58 THEN NULL
            WHEN substr(r.trace_id, 43) = printf('%016d', CAST(substr(r.trace_id, 43) AS INTEGER))
             AND substr(r.trace_id, 43) >= '0' -- and no sign
            THEN CAST(substr(r.trace_id, 43) AS INTEGER)
            ELSE CAST(ltrim(substr(r.trace_id, 43), '0') AS BLOB) END,
       CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', r.settled_at) = r.settled_at
            THEN unixepoch(r.settled_at) * 1000 + substr(r.settled_at, 21, 3)
            WHEN r.settled_at <> '' THEN r.settled_at END
  FROM old.rows r
 WHERE r.id NOT IN (SELECT id FROM alike)
   AND (r.status = 'skipped' OR r.device_id <> '' OR r.create_time <> '' OR r.code <> ''
        OR r.message <> '' OR r.http_status NOT NULL OR r.trace_id <> ''
        OR r.settled_at NOT NULL
        OR r.status NOT IN ('staged', 'claimed', 'in_doubt')
           AND (r.attempts OR r.sent_at NOT NULL))
 ORDER BY r.id;
-- Most bindings are what a row that was bound still says.
INSERT OR IGNORE INTO stored_bindings (device, device_id, create_time, since, run, name)
SELECT b.device, o.device_id, o.create_time, o.settled_at, b.run,
       CASE WHEN b.is_other THEN (
              SELECT n.name FROM names n WHERE n.device = b.device
                 AND (n.device_name, n.device_os) IS (b.device_name, b.device_os)) ELSE 0 END
  FROM stored_rows s CROSS JOIN bound b ON b.device = s.device AND b.run = s.id >> 40
 CROSS JOIN old.rows r ON r.id = s.id CROSS JOIN outcomes o ON o.id = s.id
 WHERE s.status = 0 AND r.device_id = b.device_id AND r.create_time = b.create_time
   AND r.settled_at = b.since
 ORDER BY s.id;
INSERT INTO stored_bindings (device, device_id, create_time, since, run, name)
SELECT b.device,
       CASE WHEN CAST(CAST(b.device_id AS INTEGER) AS TEXT) = b.device_id
            THEN CAST(b.device_id AS INTEGER) WHEN b.device_id <> '' THEN b.device_id END,
       CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', b.create_time) = b.create_time
            THEN unixepoch(b.create_time) * 1000 + substr(b.create_time, 21, 3)
            WHEN b.create_time <> '' THEN b.create_time END,
       CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', b.since) = b.since
            THEN unixepoch(b.since) * 1000 + substr(b.since, 21, 3)
            WHEN b.since <> '' THEN b.since END,
       b.run,
       CASE WHEN b.is_other THEN (
              SELECT n.name FROM names n WHERE n.device = b.device
                 AND (n.device_name, n.device_os) IS (b.device_name, b.device_os)) ELSE 0 END
  FROM bound b WHERE b.device NOT IN (SELECT device FROM stored_bindings)
 ORDER BY b.device;
DROP TABLE alike;
DROP TABLE bound;
