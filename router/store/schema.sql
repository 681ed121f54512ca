-- The journal, version 3. Times are ms since 1970 UTC.
-- `raw` is the message as it came over the wire, stored once however many destinations it has.
create table meta (key text primary key, value text not null) without rowid;

-- `destinations` are names with spaces between; the deliveries to them are numbered on from
-- `first_delivery`. One that has no row in `outcome` is open.
create table message (
    n integer primary key,
    source text not null,
    id text not null,
    subject text not null,
    accepted_at integer not null,
    first_delivery integer not null,
    destinations text not null,
    checksum integer not null,
    raw blob not null
);
-- The deduplication window: a repeated (source, id) is not inserted.
create unique index message_id on message (source, id);

-- Which start of the router gave a delivery its number: a word drawn at random for the numbers from
-- `first_delivery` on. What came before the first of them has none.
create table generation (first_delivery integer primary key, word text not null);

-- How deliveries ended.
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

-- Dead letters (State.DEAD is 6) are few, and looked for by destination.
create index dead_letter on outcome (destination, delivery) where state = 6;

-- Destinations that an operator holds back.
create table hold (destination text primary key, reason text not null) without rowid;

-- Deliveries that have been open for long, or that found no room in memory. No message below
-- meta.frontier has another open one, so a start needs to look through the messages from there only.
-- `lane` is the message's priority; `subject_hash` its CRC-32, 0 when it has none. What is not due
-- yet has a lane of its own, 4 above the priority, and when it is due in place of the hash.
create table backlog (
    destination text not null,
    lane integer not null,
    delivery integer not null,
    n integer not null,
    subject_hash integer not null,
    primary key (destination, lane, delivery)
) without rowid;

-- subject, and numbers by which other systems know it (correlation_id, with spaces between)
-- -> messages, filled in by whole segments of n when the writer has time: one index over all would
-- touch a page per message. meta.indexed_n says how far it has come.
create table subject_message (
    segment integer not null,
    subject text not null,
    n integer not null,
    primary key (segment, subject, n)
) without rowid;

-- Attempts that did not end a delivery. `seq` is the order in which they came, whatever the clock
-- said; those of a version 2 journal have none and came before. `age` is what routers had seen pass
-- by then (ms) since they got the delivery, or replayed it.
create table attempt (
    delivery integer not null,
    attempt integer not null,
    at integer not null,
    outcome text not null,
    note text,
    due integer,
    seq integer,
    age integer,
    primary key (delivery, at, attempt)
) without rowid;

create table total (
    destination text not null,
    state text not null,
    count integer not null,
    primary key (destination, state)
) without rowid;
