-- The journal, version 1. Times are ms since 1970 UTC.
-- `raw` is the message as it came over the wire, stored once however many destinations it has.
create table meta (key text primary key, value text not null) without rowid;

create table message (
    n integer primary key,
    source text not null,
    id text not null,
    type text not null,
    subject text not null,
    priority integer not null,
    accepted_at integer not null,
    first_delivery integer not null,
    deliveries integer not null,
    checksum integer not null,
    raw blob not null
);
-- The deduplication window: a repeated (source, id) is not inserted.
create unique index message_id on message (source, id);

-- subject -> messages, filled in steps when the writer has time: kept up to date at every commit
-- it would cost as much as all else together. meta.indexed_n says how far it has come.
create table subject_message (
    subject text not null,
    n integer not null,
    primary key (subject, n)
) without rowid;

-- A message's deliveries have consecutive numbers from first_delivery. `state` is null while a
-- delivery is open; none below meta.open_from is.
create table delivery (
    delivery integer primary key,
    n integer not null,
    destination text not null,
    state integer,
    attempts integer not null default 0,
    delivered_at integer,
    ended_at integer,
    note text,
    due integer
);

-- Attempts that did not end a delivery.
create table attempt (
    delivery integer not null,
    attempt integer not null,
    at integer not null,
    outcome text not null,
    note text,
    due integer,
    primary key (delivery, at, attempt)
) without rowid;

create table total (
    destination text not null,
    state text not null,
    count integer not null,
    primary key (destination, state)
) without rowid;
