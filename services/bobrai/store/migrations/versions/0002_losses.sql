-- A constant default: no row is rewritten, and whatever size the table has it is locked for a moment only.
ALTER TABLE tasks ADD COLUMN losses integer NOT NULL DEFAULT 0; -- workers lost while they ran it; more than 0: a suspect
