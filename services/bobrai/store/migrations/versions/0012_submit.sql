-- The limits are those of domain/limits.py, which a test holds them to. Texts with a backslash are E'': what a session
-- says of standard_conforming_strings must not change them.

-- What is wrong with a payload that PostgreSQL could read, or NULL: what the API and the workers would not.
CREATE FUNCTION bobrai_payload_fault(payload json) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    raw text := payload;
    bare text; -- without what stands in strings
    found text;
    characters integer;
BEGIN
    IF octet_length(raw) > 262144 THEN
        RETURN format('has %s bytes, more than 262144', octet_length(raw));
    END IF;
    -- Escaped backslashes first: what follows one is no escape.
    IF raw ~ E'\\\\u[dD][89a-fA-F]' AND regexp_replace(
        replace(raw, E'\\\\', '..'), E'\\\\u[dD][89abAB]..\\\\u[dD][c-fC-F]..', '..', 'g') ~ E'\\\\u[dD][89a-fA-F]' THEN
        RETURN E'has a lone surrogate, such as \\ud800 without its partner: no character';
    END IF;
    IF json_typeof(payload) = 'string' THEN
        -- No text can hold \u0000; another character is as long.
        characters := length(replace(raw, E'\\u0000', E'\\ufffd')::json #>> '{}');
        IF characters NOT BETWEEN 1 AND 10000 THEN
            RETURN format('must have 1 to 10000 characters, not %s', characters);
        END IF;
        RETURN NULL;
    END IF;
    -- So few brackets cannot nest too deep, nor so few digits be out of range: the rest is for other payloads.
    IF length(raw) - length(translate(raw, '[{', '')) <= 200 AND raw !~ '[eE][+]?[0-9]{3}|[0-9.]{250}' THEN
        RETURN NULL;
    END IF;
    bare := regexp_replace(raw, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g');
    FOR found IN
        SELECT m[1] FROM regexp_matches(bare, '[-+.0-9eE]+', 'g') AS m WHERE m[1] ~ '[eE][+]?[0-9]{3}|[0-9.]{250}'
    LOOP
        CONTINUE WHEN found ~ '[eE]-'; -- as good as zero
        IF found ~ '[.eE]' THEN
            BEGIN
                PERFORM regexp_replace(found, '([.][0-9]{20})[0-9]+', E'\\1')::double precision;
            EXCEPTION WHEN numeric_value_out_of_range THEN
                RETURN 'has a number that is out of range';
            END;
        ELSIF length(found) > 4300 THEN
            RETURN 'has a number that is out of range';
        END IF;
    END LOOP;
    bare := translate(regexp_replace(bare, '[^][{}]', '', 'g'), '{}', '[]');
    FOR depth IN 1..200 LOOP -- each round takes the innermost ones away
        bare := replace(bare, '[]', '');
    END LOOP;
    RETURN CASE WHEN bare <> '' THEN 'nests deeper than 200 arrays and objects' END;
END
$$;

-- What is wrong with a wish of waits between attempts, or NULL.
CREATE FUNCTION bobrai_retry_fault(retry jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(retry) <> 'object' THEN
        RETURN 'must be a JSON object';
    END IF;
    RETURN (
        SELECT CASE WHEN k.least IS NULL THEN format('has an unknown member %I', s.name)
                    ELSE format('needs for %s a number of %s to %s, not %s', s.name, k.least, k.most, s.value) END
        FROM jsonb_each(retry) AS s (name, value)
        LEFT JOIN (VALUES ('delay_seconds', 0, 31622400), ('factor', 1, 100), ('max_delay_seconds', 0, 31622400),
                          ('jitter', 0, 1), ('retry_for_seconds', 0.001, 31622400)) AS k (name, least, most)
          ON k.name = s.name
        WHERE CASE WHEN jsonb_typeof(s.value) = 'number' AND k.least IS NOT NULL
                   THEN (s.value #>> '{}')::numeric NOT BETWEEN k.least AND k.most ELSE true END
        LIMIT 1);
END
$$;

-- What is wrong with the times of a task, or NULL: each is within its bounds and said in one way, and no task ends before
-- it is due. A moment and a time can be compared here, where the clock is.
CREATE FUNCTION bobrai_times_fault(
    called_at timestamptz, delay numeric, run_at timestamptz, timeout numeric, deadline numeric,
    deadline_at timestamptz, expires numeric, expires_at timestamptz
) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    fault text;
    due_at timestamptz; -- NULL: at once
BEGIN
    SELECT format('%s must be %s to %s seconds, not %s', s.name, s.least, s.most, s.span) INTO fault
    FROM (VALUES ('delay', delay, 0, 31622400), ('timeout', timeout, 0.001, 604800),
                 ('deadline', deadline, 0.001, 31622400), ('expires', expires, 0.001, 31622400))
         AS s (name, span, least, most)
    WHERE s.span NOT BETWEEN s.least AND s.most LIMIT 1;
    IF fault IS NOT NULL THEN
        RETURN fault;
    END IF;
    due_at := coalesce(run_at, called_at + make_interval(secs => delay::double precision));
    SELECT CASE WHEN m.is_far THEN format('%s must be within the years 1970 to 2099, not %s', m.name, m.moment)
                WHEN m.is_double THEN format('%s cannot be combined with %s', m.name, m.other)
                ELSE format('%s must be later than the task is due', m.ends) END
    INTO fault
    FROM (SELECT n.*, n.moment NOT BETWEEN '1970-01-01 00:00:00+00' AND '2099-12-31 23:59:59.999999+00' AS is_far,
                 n.moment IS NOT NULL AND n.span IS NOT NULL AS is_double,
                 CASE WHEN n.moment IS NULL THEN n.other ELSE n.name END AS ends,
                 coalesce(n.moment, called_at + make_interval(secs => n.span::double precision)) AS ends_at
          FROM (VALUES ('run_at', run_at, 'delay', delay), ('deadline_at', deadline_at, 'deadline', deadline),
                       ('expires_at', expires_at, 'expires', expires)) AS n (name, moment, other, span)) AS m
    WHERE m.is_far OR m.is_double OR (m.name <> 'run_at' AND m.ends_at <= due_at) LIMIT 1;
    RETURN fault;
END
$$;

-- Submits a task in the caller's transaction, with the rights of whoever migrates: the caller needs EXECUTE and no
-- table. Every name is found in pg_catalog or says its schema, so that nothing that a caller makes stands in for it. The
-- clock is read at the call: by now() a delay would have begun with the transaction. One name is one function, so that it
-- is granted and called without its types: who gives it another parameter drops it, and carries its grants over.
CREATE FUNCTION bobrai_submit(
    type text, payload json, queue text DEFAULT NULL, priority integer DEFAULT NULL, delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL, timeout interval DEFAULT NULL, deadline interval DEFAULT NULL,
    deadline_at timestamptz DEFAULT NULL, expires interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    max_attempts integer DEFAULT NULL, retry jsonb DEFAULT NULL, allow_alike boolean DEFAULT NULL,
    request_id text DEFAULT NULL, traceparent text DEFAULT NULL, tracestate text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this oid;
    called_at timestamptz := clock_timestamp();
    due_at timestamptz;
    known record;
    place record;
    policy json;
    fault text;
    task_id bigint;
BEGIN
    GET DIAGNOSTICS this = PG_ROUTINE_OID;
    IF has_function_privilege('public', this, 'EXECUTE') THEN
        RAISE EXCEPTION 'bobrai_submit: everybody may execute it' USING ERRCODE = '42501',
            HINT = 'As after a restore without privileges: '
                   'REVOKE EXECUTE ON FUNCTION bobrai_submit FROM PUBLIC, then GRANT it.';
    END IF;
    fault := CASE
        WHEN type IS NULL THEN 'type is required'
        WHEN payload IS NULL THEN 'payload is required: the JSON value null is written ''null'''
        WHEN queue !~ '^[a-z0-9][a-z0-9._-]{0,62}$' THEN format('queue must be 1 to 63 of a-z, 0-9, ''.'', ''_'' and '
            '''-'', of which the first is a letter or digit, not %L', queue)
        WHEN priority NOT BETWEEN 0 AND 10 THEN format('priority must be 0 to 10, not %s', priority)
        WHEN max_attempts NOT BETWEEN 1 AND 100 THEN format('max_attempts must be 1 to 100, not %s', max_attempts)
        WHEN request_id <> '' AND request_id !~ '^[!-~]{1,128}$' THEN
            'request_id must be 1 to 128 printable ASCII characters without spaces' END;
    fault := coalesce(
        fault, 'payload ' || @schema@.bobrai_payload_fault(payload), 'retry ' || @schema@.bobrai_retry_fault(retry),
        @schema@.bobrai_times_fault(called_at, extract(epoch FROM delay), run_at, extract(epoch FROM timeout),
            extract(epoch FROM deadline), deadline_at, extract(epoch FROM expires), expires_at));
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'bobrai_submit: %', fault USING ERRCODE = '22023',
            HINT = 'Change this argument, or leave it out if it has a default; docs/limits.md lists the limits.';
    END IF;
    SELECT t.queue, t.retry, t.timeout_seconds, t.deadline_seconds, t.unique_rule IS NOT NULL AS is_unique INTO known
    FROM @schema@.task_types AS t WHERE t.name = bobrai_submit.type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'bobrai_submit: % is not a known task type', quote_literal(type) USING ERRCODE = '42704',
            HINT = 'Correct the name, or start a worker that has this type: workers announce their types.';
    END IF;
    IF known.is_unique AND allow_alike IS NOT TRUE THEN
        RAISE EXCEPTION 'bobrai_submit: tasks of the type % are unique, which SQL cannot see to', quote_literal(type)
            USING ERRCODE = '0A000',
            HINT = 'Submit it over HTTP, or say allow_alike => true: there may be several alike.';
    END IF;
    queue := coalesce(queue, known.queue);
    SELECT q.max_backlog, q.due + q.held + q.delayed + q.between_attempts AS waiting INTO place
    FROM @schema@.queues AS q WHERE q.name = bobrai_submit.queue AND q.removed_at IS NULL;
    -- None is made here: until the caller's commit, a new row would hold up everybody else who makes this queue. Those of
    -- types are made by the dispatcher, as soon as a task waits in them.
    IF NOT FOUND AND NOT EXISTS (SELECT FROM @schema@.task_types AS t WHERE t.queue = bobrai_submit.queue) THEN
        RAISE EXCEPTION 'bobrai_submit: the queue % does not exist', quote_literal(queue) USING ERRCODE = '42704',
            HINT = format('Make it with PUT /api/v1/queues/%s: tasks that are submitted in SQL make none.', queue);
    END IF;
    IF place.waiting >= place.max_backlog THEN
        RAISE EXCEPTION 'bobrai_submit: the queue % is full: at most % tasks may wait', quote_literal(queue),
            place.max_backlog
            USING ERRCODE = '53400', HINT = 'Try again in some seconds, or raise the max_backlog of the queue.';
    END IF;
    due_at := coalesce(
        run_at, called_at + make_interval(secs => extract(epoch FROM delay)::double precision), called_at);
    policy := known.retry;
    IF retry IS NOT NULL OR max_attempts IS NOT NULL THEN
        -- With a time of its own there are as many attempts as may be: the type's number is for tasks without one.
        max_attempts := coalesce(max_attempts, CASE WHEN retry ? 'retry_for_seconds' THEN 100 END,
                                 (policy ->> 'max_attempts')::integer);
        policy := policy::jsonb || coalesce(retry, '{}') || jsonb_build_object('max_attempts', max_attempts);
    END IF;
    INSERT INTO @schema@.tasks AS t (
        type, queue, priority, payload, max_attempts, retry, timeout_seconds, run_at, deadline_at, expires_at,
        client_id, request_id, trace_context, created_at, updated_at)
    VALUES (
        type, queue, coalesce(priority, 0), payload, (policy ->> 'max_attempts')::integer, policy,
        coalesce(extract(epoch FROM timeout), known.timeout_seconds), due_at,
        coalesce(deadline_at, called_at + make_interval(
            secs => coalesce(extract(epoch FROM deadline)::double precision, known.deadline_seconds))),
        coalesce(expires_at, called_at + make_interval(secs => extract(epoch FROM expires)::double precision)),
        'sql:' || session_user, coalesce(request_id, ''),
        -- What is malformed is left out, as W3C Trace Context has it.
        CASE WHEN traceparent ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$'
             THEN traceparent || CASE WHEN tracestate ~ '^[!-~][ -~]*$' AND length(tracestate) <= 512
                                      THEN ' ' || tracestate ELSE '' END
             ELSE '' END,
        called_at, called_at)
    RETURNING t.id INTO task_id;
    IF task_id IS NULL THEN
        RAISE EXCEPTION 'bobrai_submit: a trigger keeps the task away'
            USING ERRCODE = '55000', HINT = 'The triggers on tasks must let every row through.';
    END IF;
    INSERT INTO @schema@.outbox (task_id, attempt, queue, priority, due_at)
    VALUES (task_id, 0, queue, coalesce(priority, 0), due_at);
    PERFORM pg_notify('bobrai_outbox', '');
    RETURN task_id;
END
$$;

REVOKE EXECUTE ON FUNCTION bobrai_payload_fault, bobrai_retry_fault, bobrai_times_fault, bobrai_submit FROM PUBLIC;
