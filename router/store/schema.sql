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
create index message_subject on message (subject);

-- Open deliveries only: what must be taken up at a start.
create table delivery (
    delivery integer primary key,
    n integer not null,
    destination text not null,
    due integer,
    attempts integer not null default 0
);

-- How deliveries ended. A message's deliveries have consecutive numbers from first_delivery.
create table outcome (
    delivery integer primary key,
    n integer not null,
    destination text not null,
    state integer not null,
    attempts integer not null,
    delivered_at integer,
    ended_at integer not null,
    note text
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
