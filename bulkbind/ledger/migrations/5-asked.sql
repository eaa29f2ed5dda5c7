-- Version 5: rows that a condition leaves out, where they are kept; and the rows of a device, by
-- its machine code, for its history.

-- Nothing that is stored depends on the two checks, so the text of the schema may be replaced.
-- Source: sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes".
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
   SET sql = replace(replace(sql, '''withdrawn'')),', '''withdrawn'', ''left_out'')),'),
                     '(status = ''invalid'') = (problems IS NOT NULL)',
                     '(status IN (''invalid'', ''left_out'')) = (problems IS NOT NULL)')
 WHERE type = 'table' AND name = 'rows';
PRAGMA writable_schema = RESET;

-- Skipped rows, most of a nightly run, are found by the user whom other rows of the device name.
CREATE INDEX rows_code ON rows (machine_code) WHERE status <> 'skipped';
