-- Without a default: no row is rewritten, and whatever size the table has it is locked for a moment only.
ALTER TABLE tasks ADD COLUMN retry_until timestamptz; -- no failed attempt is tried again after it; NULL: no bound in time, or
                                                      -- no attempt since the latest replay has ended
