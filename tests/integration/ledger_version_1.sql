-- A ledger of version 1 whose run was cut off by kill -9: 8 rows bound, 5 in doubt (the server has
-- bound them), 11 claimed, of which none was bound.
PRAGMA application_id = 1650617393;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "attempts" VALUES(1099511627779,1795501681.364,0.001677,'NoAnswer',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000004');
INSERT INTO "attempts" VALUES(1099511627781,1795501682.121,0.001970,'Transient',500,'13000001','internal error','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000006');
INSERT INTO "attempts" VALUES(1099511627784,1795501682.497,0.001660,'NoAnswer',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000009');
INSERT INTO "attempts" VALUES(1099511627785,1795501682.621,0.002421,'NoAnswer',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000a');
INSERT INTO "attempts" VALUES(1099511627786,1795501682.746,0.002222,'Transient',500,'13000001','internal error','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000b');
INSERT INTO "attempts" VALUES(1099511627781,1795501682.871,0.001516,'Transient',500,'13000001','internal error','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000c');
INSERT INTO "attempts" VALUES(1099511627788,1795501683.123,0.001537,'NoAnswer',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000e');
INSERT INTO "attempts" VALUES(1099511627789,1795501683.248,0.004156,'NoAnswer',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000f');
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
INSERT INTO "bindings" VALUES('user_0','SN000000','1842812272691451648','2026-11-24T06:28:01.529Z','Van 0','Android 15','2026-11-24T06:28:01.556Z',1);
INSERT INTO "bindings" VALUES('user_0','SN000006','1842812272691451653','2026-11-24T06:28:02.269Z','Van 6','Android 15','2026-11-24T06:28:02.295Z',1);
INSERT INTO "bindings" VALUES('user_1','SN000001','1842812272691451649','2026-11-24T06:28:01.645Z','Van 1','Android 15','2026-11-24T06:28:01.671Z',1);
INSERT INTO "bindings" VALUES('user_1','SN000004','1842812272691451652','2026-11-24T06:28:02.021Z','Van 4','Android 15','2026-11-24T06:28:02.047Z',1);
INSERT INTO "bindings" VALUES('user_1','SN000007','1842812272691451654','2026-11-24T06:28:02.394Z','Van 7','Android 15','2026-11-24T06:28:02.420Z',1);
INSERT INTO "bindings" VALUES('user_2','SN000002','1842812272691451650','2026-11-24T06:28:01.770Z','Van 2','Android 15','2026-11-24T06:28:01.796Z',1);
INSERT INTO "bindings" VALUES('user_2','SN000011','1842812272691451657','2026-11-24T06:28:03.019Z','Van 11','Android 15','2026-11-24T06:28:03.046Z',1);
INSERT INTO "bindings" VALUES('user_2','SN000014','1842812272691451660','2026-11-24T06:28:03.398Z','Van 14','Android 15','2026-11-24T06:28:03.424Z',1);
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('endpoint','"https://example.test"');
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
INSERT INTO "rows" VALUES(1099511627776,1,0,2,'user_0','SN000000','Van 0','Android 15',NULL,NULL,NULL,'bound',NULL,1,0,0,'1842812272691451648','2026-11-24T06:28:01.529Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000001','2026-11-24T06:28:01.556Z','');
INSERT INTO "rows" VALUES(1099511627777,1,0,3,'user_1','SN000001','Van 1','Android 15',NULL,NULL,NULL,'bound',1795501681.001,1,0,0,'1842812272691451649','2026-11-24T06:28:01.645Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000002','2026-11-24T06:28:01.671Z','');
INSERT INTO "rows" VALUES(1099511627778,1,0,4,'user_2','SN000002','Van 2','Android 15',NULL,NULL,NULL,'bound',1795501681.001,1,0,0,'1842812272691451650','2026-11-24T06:28:01.770Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000003','2026-11-24T06:28:01.796Z','');
INSERT INTO "rows" VALUES(1099511627779,1,0,5,'user_0','SN000003','Van 3','Android 15',NULL,NULL,'["SN000003","user_0","Van 3","Android 15"]','in_doubt',1795501681.001,1,1,0,'','',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000004',NULL,'');
INSERT INTO "rows" VALUES(1099511627780,1,0,6,'user_1','SN000004','Van 4','Android 15',NULL,NULL,NULL,'bound',1795501681.001,1,0,0,'1842812272691451652','2026-11-24T06:28:02.021Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000005','2026-11-24T06:28:02.047Z','');
INSERT INTO "rows" VALUES(1099511627781,1,0,7,'user_2','SN000005','Van 5','Android 15',NULL,NULL,'["SN000005","user_2","Van 5","Android 15"]','claimed',1795501681.001,2,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627782,1,0,8,'user_0','SN000006','Van 6','Android 15',NULL,NULL,NULL,'bound',1795501681.001,1,0,0,'1842812272691451653','2026-11-24T06:28:02.269Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000007','2026-11-24T06:28:02.295Z','');
INSERT INTO "rows" VALUES(1099511627783,1,0,9,'user_1','SN000007','Van 7','Android 15',NULL,NULL,NULL,'bound',1795501681.001,1,0,0,'1842812272691451654','2026-11-24T06:28:02.394Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000008','2026-11-24T06:28:02.420Z','');
INSERT INTO "rows" VALUES(1099511627784,1,0,10,'user_2','SN000008','Van 8','Android 15',NULL,NULL,'["SN000008","user_2","Van 8","Android 15"]','in_doubt',1795501681.001,1,1,0,'','',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000009',NULL,'');
INSERT INTO "rows" VALUES(1099511627785,1,0,11,'user_0','SN000009','Van 9','Android 15',NULL,NULL,'["SN000009","user_0","Van 9","Android 15"]','in_doubt',1795501681.002,1,1,0,'','',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000a',NULL,'');
INSERT INTO "rows" VALUES(1099511627786,1,0,12,'user_1','SN000010','Van 10','Android 15',NULL,NULL,'["SN000010","user_1","Van 10","Android 15"]','claimed',1795501681.002,1,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627787,1,0,13,'user_2','SN000011','Van 11','Android 15',NULL,NULL,NULL,'bound',1795501681.002,1,0,0,'1842812272691451657','2026-11-24T06:28:03.019Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000d','2026-11-24T06:28:03.046Z','');
INSERT INTO "rows" VALUES(1099511627788,1,0,14,'user_0','SN000012','Van 12','Android 15',NULL,NULL,'["SN000012","user_0","Van 12","Android 15"]','in_doubt',1795501681.002,1,1,0,'','',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000e',NULL,'');
INSERT INTO "rows" VALUES(1099511627789,1,0,15,'user_1','SN000013','Van 13','Android 15',NULL,NULL,'["SN000013","user_1","Van 13","Android 15"]','in_doubt',1795501681.002,1,1,0,'','',NULL,'reset','the connection broke: [Errno 104] Connection reset by peer','f51973bc1ffebaa89ccd89d0199b60f2fac6b05143000000000000000f',NULL,'');
INSERT INTO "rows" VALUES(1099511627790,1,0,16,'user_2','SN000014','Van 14','Android 15',NULL,NULL,NULL,'bound',1795501681.002,1,0,0,'1842812272691451660','2026-11-24T06:28:03.398Z',200,'0','success','f51973bc1ffebaa89ccd89d0199b60f2fac6b051430000000000000010','2026-11-24T06:28:03.424Z','');
INSERT INTO "rows" VALUES(1099511627791,1,0,17,'user_0','SN000015','Van 15','Android 15',NULL,NULL,'["SN000015","user_0","Van 15","Android 15"]','claimed',1795501681.002,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627792,1,0,18,'user_1','SN000016','Van 16','Android 15',NULL,NULL,'["SN000016","user_1","Van 16","Android 15"]','claimed',1795501681.002,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627793,1,0,19,'user_2','SN000017','Van 17','Android 15',NULL,NULL,'["SN000017","user_2","Van 17","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627794,1,0,20,'user_0','SN000018','Van 18','Android 15',NULL,NULL,'["SN000018","user_0","Van 18","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627795,1,0,21,'user_1','SN000019','Van 19','Android 15',NULL,NULL,'["SN000019","user_1","Van 19","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627796,1,0,22,'user_2','SN000020','Van 20','Android 15',NULL,NULL,'["SN000020","user_2","Van 20","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627797,1,0,23,'user_0','SN000021','Van 21','Android 15',NULL,NULL,'["SN000021","user_0","Van 21","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627798,1,0,24,'user_1','SN000022','Van 22','Android 15',NULL,NULL,'["SN000022","user_1","Van 22","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
INSERT INTO "rows" VALUES(1099511627799,1,0,25,'user_2','SN000023','Van 23','Android 15',NULL,NULL,'["SN000023","user_2","Van 23","Android 15"]','claimed',1795501682.499,0,0,0,'','',NULL,'','','',NULL,'');
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
INSERT INTO "runs" VALUES(1,'20261124-062801-7931','sending','96e12b72ecd727c27b18e935bb5e7d6915167dd0a6921015034089724c2fd774','2026-11-24T06:28:01.506Z','2026-11-24T06:28:01.517Z',NULL,NULL,NULL,'somebody','here',1,'0.1.0','{}','{}');
CREATE TABLE sources (
  run    INTEGER NOT NULL REFERENCES runs,
  source INTEGER NOT NULL,               -- 0-based, in the order given
  form   TEXT NOT NULL,                  -- JSON: name, format, encoding, bom, delimiter, header
  PRIMARY KEY (run, source)
) WITHOUT ROWID;
INSERT INTO "sources" VALUES(1,0,'{"name": "fleet.csv", "format": "csv", "encoding": "utf-8", "bom": false, "delimiter": ",", "header": ["machine_code", "user_id", "device_name", "device_os"]}');
CREATE UNIQUE INDEX rows_device ON rows (run, user_id, machine_code)
  WHERE problems IS NULL AND duplicate_of IS NULL;
CREATE INDEX rows_open ON rows (user_id, machine_code) WHERE status IN ('claimed', 'in_doubt');
CREATE INDEX bindings_code ON bindings (machine_code, user_id);
CREATE INDEX attempts_row ON attempts (row);
COMMIT;
