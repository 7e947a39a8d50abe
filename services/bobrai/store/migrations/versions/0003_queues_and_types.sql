-- Constant defaults, which rewrite no row, on tables of a few hundred rows: each is locked for a moment only.
ALTER TABLE queues ADD COLUMN kept boolean NOT NULL DEFAULT false;          -- asked for by name: never goes by itself
ALTER TABLE queues ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();   -- when a task was last seen, to a minute
ALTER TABLE queues ADD COLUMN removed_at timestamptz;                       -- gone for everybody; RabbitMQ's goes next
ALTER TABLE task_types ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now(); -- when a worker last had it, to a minute
ALTER TABLE workers ADD COLUMN types text[];                                -- NULL: of a release that does not say
