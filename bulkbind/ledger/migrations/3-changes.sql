-- Version 3: what cleaning did to a row's values, as a person reads it; NULL: nothing.
ALTER TABLE rows ADD COLUMN changes TEXT;
