-- The bus's schema in the ambulance system's PostgreSQL (13 or newer); README.md explains it.
--
-- May be run again at any time, also over an older version of itself, by the owner of the schema:
--     smpbus sql schema | psql -X -v ON_ERROR_STOP=1 -d DATABASE
--
-- Nothing here leaves anything in a session: all of it works through PgBouncer in transaction mode.

BEGIN;

CREATE SCHEMA IF NOT EXISTS smpbus;

-- Whoever owns the schema, or anything in it, could put something else in its place at any time.
DO $$
DECLARE
    we CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
    here CONSTANT oid := (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'smpbus');
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE oid = here AND nspowner <> we)
        OR EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = here AND relowner <> we)
        OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = here AND proowner <> we)
    THEN
        RAISE EXCEPTION 'smpbus: the schema smpbus, or something in it, belongs to another role'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'Run this as its owner, or DROP SCHEMA smpbus if nobody knows whose it is.';
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS smpbus.version (
    version integer NOT NULL,
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row)
);

DO $$
BEGIN
    IF current_setting('server_version_num')::integer < 130000 THEN
        RAISE EXCEPTION 'smpbus: PostgreSQL 13 or newer is needed';
    END IF;
    IF (SELECT max(version) FROM smpbus.version) > 1 THEN
        RAISE EXCEPTION 'smpbus: the schema here is newer than this script';
    END IF;
END
$$;

-- What the ambulance system tells the bus. A row is waiting until the router has it on disk.
CREATE TABLE IF NOT EXISTS smpbus.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL CONSTRAINT outbox_id UNIQUE,
    type text NOT NULL,
    subject text NOT NULL,
    priority integer NOT NULL,
    payload jsonb NOT NULL,
    bytes integer NOT NULL,
    not_before timestamptz,
    expires timestamptz,
    correlation_id text,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'accepted', 'refused')),
    ended_at timestamptz,
    reason text
);

-- What the bus tells the ambulance system. `key` is the delivery's: a repeat has the same.
CREATE TABLE IF NOT EXISTS smpbus.inbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL CONSTRAINT inbox_key UNIQUE,
    id text NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    subject text NOT NULL,
    time timestamptz NOT NULL,
    priority integer NOT NULL,
    expires timestamptz,
    correlation_id text,
    payload jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    ended_at timestamptz,
    reason text
);

-- Only waiting rows are in these: however long the tables are, a poll reads what waits.
CREATE INDEX IF NOT EXISTS outbox_waiting ON smpbus.outbox (priority, seq)
    WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS outbox_subjects ON smpbus.outbox (subject, seq)
    WHERE state = 'waiting' AND subject <> '';
CREATE INDEX IF NOT EXISTS inbox_waiting ON smpbus.inbox (priority, seq)
    WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS inbox_subjects ON smpbus.inbox (subject, seq)
    WHERE state = 'waiting' AND subject <> '';
-- For pruning.
CREATE INDEX IF NOT EXISTS outbox_ended ON smpbus.outbox (ended_at) WHERE state <> 'waiting';
CREATE INDEX IF NOT EXISTS inbox_ended ON smpbus.inbox (ended_at) WHERE state <> 'waiting';

-- A queue's dead rows are many and lie where the next poll begins.
ALTER TABLE smpbus.outbox
    SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE smpbus.inbox
    SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);

-- The functions that look for what waits forbid themselves whatever would read all of it: statistics
-- know nothing of a queue that was empty a minute ago.

-- -- for the ambulance system -------------------------------------------------------------------

-- These four are called by the functions below only, which set the search path.

-- What is seen by others must not be lost by a crash, or the bus would know what never was.
CREATE OR REPLACE FUNCTION smpbus.be_durable() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- NOTIFY makes commits wait for each other: `SET LOCAL smpbus.notify = off` spares a large
-- transaction that, ALTER DATABASE ... SET smpbus.notify = off all of them.
CREATE OR REPLACE FUNCTION smpbus.wake(channel text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('smpbus.notify', true), '') <> 'off' THEN
        PERFORM pg_notify(channel, '');
    END IF;
END
$$;

-- Writers of one subject wait for each other, from here to the end of their transactions: so the
-- order of `seq` is the order of their commits. Only the first 256 calls of a transaction lock new
-- subjects, since the server's lock table is small.
CREATE OR REPLACE FUNCTION smpbus.lock_subject(subject text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    locks integer := coalesce(nullif(current_setting('smpbus.locks', true), ''), '0')::integer;
BEGIN
    IF subject <> '' AND locks < 256 THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('smpbus ' || subject, 0));
        PERFORM set_config('smpbus.locks', (locks + 1)::text, true);
    END IF;
END
$$;

-- Raises what breaks a rule of form: the field and the rule, never the value.
CREATE OR REPLACE FUNCTION smpbus.check_form(
    type text, subject text, payload jsonb, id text, priority integer, not_before timestamptz,
    expires timestamptz, correlation_id text
) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    wrong text := CASE
        WHEN type IS NULL THEN 'type: is required'
        WHEN length(type) > 128 THEN 'type: is longer than 128 characters'
        WHEN type !~ '^[a-z0-9_]+(\.[a-z0-9_]+)+$'
            THEN 'type: is not words of a-z, 0-9 and _ with dots between, such as call.status.v1'
        WHEN subject IS NULL THEN 'subject: is required; '''' means no order'
        WHEN length(subject) > 256 THEN 'subject: is longer than 256 characters'
        WHEN payload IS NULL THEN 'payload: is required'
        WHEN id = '' THEN 'id: is empty'
        WHEN length(id) > 128 THEN 'id: is longer than 128 characters'
        WHEN priority NOT BETWEEN 0 AND 3
            THEN 'priority: is not 0 (emergency), 1 (urgent), 2 (routine) or 3 (bulk)'
        WHEN not_before NOT BETWEEN '1970-01-01 00:00Z' AND '9999-12-31 00:00Z'
            THEN 'not_before: is not between 1970 and 9999'
        WHEN expires NOT BETWEEN '1970-01-01 00:00Z' AND '9999-12-31 00:00Z'
            THEN 'expires: is not between 1970 and 9999'
        WHEN length(correlation_id) > 256 THEN 'correlation_id: is longer than 256 characters'
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'smpbus.publish: %', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- Publish in the transaction at hand; returns the message's id. The same id again publishes
-- nothing. Without a priority what is urgent by its nature is urgent, everything else routine.
CREATE OR REPLACE FUNCTION smpbus.publish(
    type text,
    subject text,
    payload jsonb,
    id text DEFAULT NULL,
    priority integer DEFAULT NULL,
    not_before timestamptz DEFAULT NULL,
    expires timestamptz DEFAULT NULL,
    correlation_id text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    given text := coalesce(id, gen_random_uuid()::text);
    urgency integer := coalesce(priority, CASE
        WHEN type IN ('call.status.v1', 'incident.card_update.v1', 'telephony.dial.v1')
            OR type LIKE 'hospital.%' THEN 1
        ELSE 2
    END);
BEGIN
    PERFORM smpbus.check_form(
        type, subject, payload, id, priority, not_before, expires, correlation_id);
    PERFORM smpbus.be_durable();
    PERFORM smpbus.lock_subject(subject);
    INSERT INTO smpbus.outbox
        (id, type, subject, priority, payload, bytes, not_before, expires, correlation_id)
    VALUES
        (given, type, subject, urgency, payload, octet_length(payload::text),
         not_before, expires, correlation_id)
    ON CONFLICT ON CONSTRAINT outbox_id DO NOTHING;
    PERFORM smpbus.wake('smpbus_outbox');
    RETURN given;
END
$$;

-- Take what waits, the first of each subject, urgent ones first; it is done when the transaction
-- at hand commits, and waits again when it does not. Several programs may take at once.
CREATE OR REPLACE FUNCTION smpbus.take(rows_max integer DEFAULT 100) RETURNS SETOF smpbus.inbox
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    WITH head AS (
        SELECT i.seq FROM smpbus.inbox i
        WHERE i.state = 'waiting' AND (i.subject = '' OR i.seq = (
            SELECT e.seq FROM smpbus.inbox e
            WHERE e.state = 'waiting' AND e.subject <> '' AND e.subject = i.subject
            ORDER BY e.seq LIMIT 1))
        ORDER BY i.priority, i.seq LIMIT rows_max
        FOR UPDATE OF i SKIP LOCKED
    ), taken AS (
        UPDATE smpbus.inbox i SET state = 'done', ended_at = clock_timestamp()
        FROM head WHERE i.seq = head.seq RETURNING i.*
    )
    SELECT * FROM taken ORDER BY taken.priority, taken.seq;
END
$$;

-- Lay a row of the inbox aside, with the reason: it cannot be applied. Later ones of its subject go.
CREATE OR REPLACE FUNCTION smpbus.fail(row_seq bigint, why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE smpbus.inbox SET state = 'failed', ended_at = clock_timestamp(), reason = left(why, 400)
    WHERE seq = row_seq;
    RETURN FOUND;
END
$$;

-- Have a row that was laid aside wait again.
CREATE OR REPLACE FUNCTION smpbus.take_again(row_seq bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE smpbus.inbox SET state = 'waiting', ended_at = NULL, reason = NULL
    WHERE seq = row_seq AND state = 'failed';
    RETURN FOUND;
END
$$;

-- Have a refused row of the outbox wait again: its route or right is there now.
CREATE OR REPLACE FUNCTION smpbus.publish_again(row_id text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE smpbus.outbox SET state = 'waiting', ended_at = NULL, reason = NULL
    WHERE id = row_id AND state = 'refused';
    PERFORM smpbus.wake('smpbus_outbox');
    RETURN FOUND;
END
$$;

-- -- for the connector --------------------------------------------------------------------------

-- Return what waits: the most urgent rows, and before each what is earlier of its subject; at most
-- `rows_max` rows and `bytes_max` bytes, but at least one. Nothing is locked and nothing marked:
-- a row is waiting until `bus_accepted` or `bus_refused`. A payload longer than `body_max` is NULL.
CREATE OR REPLACE FUNCTION smpbus.bus_waiting(
    rows_max integer, bytes_max bigint, body_max integer, held_subjects text[], held_rows bigint[]
) RETURNS TABLE (
    seq bigint, id text, type text, subject text, priority integer, time_ms bigint,
    not_before_ms bigint, expires_ms bigint, correlation_id text, payload text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    WITH first AS MATERIALIZED (
        SELECT o.seq, o.subject, o.priority FROM smpbus.outbox o
        WHERE o.state = 'waiting'
            AND o.subject <> ALL (held_subjects) AND o.seq <> ALL (held_rows)
        ORDER BY o.priority, o.seq LIMIT rows_max
    ), wanted AS (
        SELECT f.seq, f.priority AS urgency FROM first f WHERE f.subject = ''
        UNION ALL
        SELECT e.seq, s.urgency FROM (
            SELECT f.subject, max(f.seq) AS last, min(f.priority) AS urgency
            FROM first f WHERE f.subject <> '' GROUP BY f.subject
        ) s CROSS JOIN LATERAL (
            SELECT o.seq FROM smpbus.outbox o
            WHERE o.state = 'waiting' AND o.subject <> '' AND o.subject = s.subject
                AND o.seq <= s.last
            ORDER BY o.seq LIMIT rows_max
        ) e
    ), ranked AS (
        SELECT o.*, row_number() OVER line AS place, sum(o.bytes::bigint) OVER line AS total
        FROM wanted w JOIN smpbus.outbox o ON o.seq = w.seq
        WINDOW line AS (ORDER BY w.urgency, w.seq ROWS UNBOUNDED PRECEDING)
    )
    SELECT r.seq, r.id, r.type, r.subject, r.priority,
        (extract(epoch FROM r.published_at) * 1000)::bigint,
        (extract(epoch FROM r.not_before) * 1000)::bigint,
        (extract(epoch FROM r.expires) * 1000)::bigint,
        r.correlation_id,
        CASE WHEN r.bytes <= body_max THEN r.payload::text END
    FROM ranked r
    WHERE r.place <= rows_max AND (r.total <= bytes_max OR r.place = 1)
    ORDER BY r.place;
END
$$;

CREATE OR REPLACE FUNCTION smpbus.bus_accepted(row_seqs bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    marked integer;
BEGIN
    UPDATE smpbus.outbox SET state = 'accepted', ended_at = clock_timestamp()
    WHERE seq = ANY (row_seqs) AND ended_at IS NULL;  -- "state" would invite a scan of all that wait
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;

CREATE OR REPLACE FUNCTION smpbus.bus_refused(row_seqs bigint[], reasons text[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    marked integer;
BEGIN
    UPDATE smpbus.outbox o
    SET state = 'refused', ended_at = clock_timestamp(), reason = told.reason
    FROM unnest(row_seqs, reasons) AS told (seq, reason)
    WHERE o.seq = told.seq AND o.ended_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;

-- Put deliveries into the inbox, in the order given; returns how many were new.
CREATE OR REPLACE FUNCTION smpbus.bus_deliver(
    keys text[], ids text[], types text[], sources text[], subjects text[], times_ms bigint[],
    priorities integer[], expire_ms bigint[], correlation_ids text[], payloads text[]
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    added integer;
BEGIN
    PERFORM smpbus.be_durable();
    INSERT INTO smpbus.inbox
        (key, id, type, source, subject, time, priority, expires, correlation_id, payload)
    SELECT d.key, d.id, d.type, d.source, d.subject, to_timestamp(d.time_ms / 1000.0), d.priority,
        to_timestamp(d.expire_ms / 1000.0), d.correlation_id, d.payload::jsonb
    FROM unnest(keys, ids, types, sources, subjects, times_ms, priorities, expire_ms,
                correlation_ids, payloads) WITH ORDINALITY
        AS d (key, id, type, source, subject, time_ms, priority, expire_ms, correlation_id,
              payload, place)
    ORDER BY d.place
    ON CONFLICT ON CONSTRAINT inbox_key DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added > 0 THEN
        PERFORM smpbus.wake('smpbus_inbox');
    END IF;
    RETURN added;
END
$$;

-- Delete what ended longer than `keep_hours` ago (what was refused or failed: a month at least), at
-- most `rows_max` rows of each table; returns how many.
CREATE OR REPLACE FUNCTION smpbus.bus_prune(keep_hours integer, rows_max integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    kept timestamptz := clock_timestamp() - make_interval(hours => keep_hours);
    kept_bad timestamptz := clock_timestamp() - make_interval(hours => greatest(keep_hours, 720));
    gone_out integer;
    gone_in integer;
BEGIN
    DELETE FROM smpbus.outbox WHERE seq IN (
        SELECT o.seq FROM smpbus.outbox o
        WHERE o.state <> 'waiting' AND o.ended_at < kept
            AND (o.state = 'accepted' OR o.ended_at < kept_bad)
        ORDER BY o.ended_at LIMIT rows_max);
    GET DIAGNOSTICS gone_out = ROW_COUNT;
    DELETE FROM smpbus.inbox WHERE seq IN (
        SELECT i.seq FROM smpbus.inbox i
        WHERE i.state <> 'waiting' AND i.ended_at < kept
            AND (i.state = 'done' OR i.ended_at < kept_bad)
        ORDER BY i.ended_at LIMIT rows_max);
    GET DIAGNOSTICS gone_in = ROW_COUNT;
    RETURN gone_out + gone_in;
END
$$;

-- -- who may do what ----------------------------------------------------------------------------

REVOKE ALL ON ALL TABLES IN SCHEMA smpbus FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smpbus FROM PUBLIC;

-- The ambulance system's own role: publishes, takes, and may look.
CREATE OR REPLACE FUNCTION smpbus.allow_vendor(grantee name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA smpbus TO %I', grantee);
    EXECUTE format('GRANT SELECT ON smpbus.version, smpbus.outbox, smpbus.inbox TO %I', grantee);
    EXECUTE format('GRANT EXECUTE ON FUNCTION smpbus.publish, smpbus.publish_again, smpbus.take, '
        'smpbus.take_again, smpbus.fail TO %I', grantee);
END
$$;

-- The connector's role: these functions and nothing else, so no table of anybody's.
CREATE OR REPLACE FUNCTION smpbus.allow_bus(grantee name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA smpbus TO %I', grantee);
    EXECUTE format('GRANT SELECT ON smpbus.version TO %I', grantee);
    EXECUTE format('GRANT EXECUTE ON FUNCTION smpbus.bus_waiting, smpbus.bus_accepted, '
        'smpbus.bus_refused, smpbus.bus_deliver, smpbus.bus_prune TO %I', grantee);
END
$$;

REVOKE ALL ON FUNCTION smpbus.allow_vendor, smpbus.allow_bus FROM PUBLIC;

INSERT INTO smpbus.version (version) VALUES (1)
    ON CONFLICT (only_row) DO UPDATE SET version = excluded.version;

COMMIT;
