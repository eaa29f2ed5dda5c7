-- Version 2: doubt outlives the process that had it, also if that lived shorter than the settling
-- time. All but `misses` are NULL until a row is in doubt, and mean nothing once it is not.

ALTER TABLE rows ADD COLUMN verdict TEXT;    -- on the last request; NULL: none was heard
ALTER TABLE rows ADD COLUMN silent_at REAL;  -- since when nothing of ours is on its way, local clock
ALTER TABLE rows ADD COLUMN misses INTEGER NOT NULL DEFAULT 0; -- trusted lists that lacked it
ALTER TABLE rows ADD COLUMN missed_at REAL;  -- when the last of them was read, local clock

-- What an older version left in doubt is silent from now on.
UPDATE rows INDEXED BY rows_open SET silent_at = (julianday('now') - 2440587.5) * 86400.0
 WHERE status IN ('claimed', 'in_doubt') AND status = 'in_doubt';
