-- Version 7: leaving. Runs that unbind a list or take over what is bound, whose a binding is, and
-- the scopes of which manifests are the whole truth.

-- Nothing that is stored depends on what is changed here, so the text of the schema may be replaced.
-- Source: sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes".
PRAGMA writable_schema = ON;
-- A row of an unbind run ends as 12 unbound, 13 already_gone, 14 changed or 15 not_ours.
UPDATE sqlite_schema
   SET sql = replace(sql, '(status BETWEEN 0 AND 11)', '(status BETWEEN 0 AND 15)')
 WHERE type = 'table' AND name = 'stored_rows';
UPDATE sqlite_schema
   SET sql = replace(sql, 'WHEN 11 THEN ''left_out''',
                     'WHEN 11 THEN ''left_out'' WHEN 12 THEN ''unbound''
            WHEN 13 THEN ''already_gone'' WHEN 14 THEN ''changed'' WHEN 15 THEN ''not_ours''')
 WHERE type = 'view' AND name = 'rows';
UPDATE sqlite_schema
   SET sql = replace(sql, 'WHEN ''left_out'' THEN 11',
                     'WHEN ''left_out'' THEN 11 WHEN ''unbound'' THEN 12
            WHEN ''already_gone'' THEN 13 WHEN ''changed'' THEN 14 WHEN ''not_ours'' THEN 15')
 WHERE type = 'trigger' AND name = 'rows_update';
-- `leave`: the device leaves its user, as an unbind run says, whose row it is, or a run of its
-- scope; such a run has no row for it, and `row` is an id of the run from position 2^39 on.
UPDATE sqlite_schema
   SET sql = replace(sql, '(''undo'', ''move'')', '(''undo'', ''move'', ''leave'')')
 WHERE type = 'table' AND name = 'unbindings';
PRAGMA writable_schema = RESET;

-- The manifest's absolute path, or the name given with --sync-name.
CREATE TABLE scopes (
  scope INTEGER PRIMARY KEY,
  name  TEXT NOT NULL UNIQUE
);

-- An adoption is a run without rows.
ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'bind'
  CHECK (kind IN ('bind', 'unbind', 'adopt'));
ALTER TABLE runs ADD COLUMN scope INTEGER REFERENCES scopes; -- NULL: of none
CREATE INDEX runs_scope ON runs (scope, run) WHERE scope IS NOT NULL;

-- What a scope's run named that its rows do not tell any more, or never made: adopted devices, and
-- devices of its last run if that was pruned.
CREATE TABLE scope_devices (
  scope  INTEGER NOT NULL REFERENCES scopes,
  device INTEGER NOT NULL REFERENCES devices,
  run    INTEGER NOT NULL REFERENCES runs,
  PRIMARY KEY (scope, device)
) WITHOUT ROWID;

-- Whose a binding is: 0 bound by its run, 1 found on the server by a run, 2 adopted.
ALTER TABLE stored_bindings ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held BETWEEN 0 AND 2);
-- Only what a row says that was bound is ours; of a pruned run, whether it found anything.
UPDATE stored_bindings SET held = 1
 WHERE device NOT IN (
       SELECT b.device FROM stored_bindings b JOIN stored_rows r ON r.device = b.device
         JOIN outcomes o ON o.id = r.id
        WHERE r.status = 0 AND o.device_id IS b.device_id)
   AND (device IN (SELECT device FROM stored_rows WHERE status = 5)
        OR run NOT IN (SELECT run FROM runs WHERE facts ->> 'pruned_at' IS NOT NULL
                          AND coalesce(facts ->> '$.pruned_counts.already_bound', 0) = 0));

DROP VIEW bindings;
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
       b.run,
       CASE b.held WHEN 0 THEN 'bound' WHEN 1 THEN 'found' WHEN 2 THEN 'adopted' END AS held
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
