-- First version.

create table meta (
    name text primary key,
    value text not null
) strict;

-- Every fact, once. States are a fold over them; the keys make a repeated fact change nothing.
create table facts (
    id integer primary key,
    key text not null unique,
    kind text not null,
    body text not null,
    at integer not null
) strict;

create table requests (
    request_id blob primary key,
    status text not null check (status in (
        'admitted',     -- nothing -> admitted, and again when the same request id is posted again
        'receipted',    -- admitted -> receipted
        'answered',     -- admitted, receipted -> answered
        'broken',       -- admitted, receipted -> broken
        'interrupted'   -- admitted, receipted -> interrupted, at the start after a crash
    )),
    node blob not null,
    escrow blob not null,
    ended_at integer not null,
    body text not null
) strict;
create index requests_open on requests (status) where status in ('admitted', 'receipted');
create index requests_ended on requests (ended_at) where ended_at > 0;

-- One row per (allotment, enclave key): earned against paid.
create table tallies (
    allotment blob not null,
    enclave_key blob not null,
    node blob not null,
    escrow blob not null,
    unclaimed_nano integer not null,
    body text not null,
    primary key (allotment, enclave_key)
) strict;
create index tallies_unclaimed on tallies (node) where unclaimed_nano > 0;
create index tallies_escrow on tallies (escrow);

create table settlements (
    node blob primary key,
    phase text not null check (phase in ('idle', 'asked', 'ready', 'sent')),
    body text not null
) strict;

-- Outer receipts as they came, signature included. Two hashes under one seq are evidence, so both are kept.
create table receipts (
    allotment blob not null,
    enclave_key blob not null,
    seq integer not null,
    hash blob not null,
    escrow blob not null,
    node blob not null,
    cumulative_nano integer not null,
    payload blob not null,
    at integer not null,
    primary key (allotment, enclave_key, seq, hash)
) strict, without rowid;
create index receipts_escrow on receipts (escrow, allotment, enclave_key, seq);

-- What is to be done in the world. A row is closed by a fact that shows it done, never by having been tried.
create table outbox (
    id integer primary key,
    key text not null unique,
    kind text not null,
    node blob not null,
    body text not null,
    opened_at integer not null,
    closed_at integer,
    closed_by text
) strict;
create index outbox_open on outbox (node) where closed_at is null;
-- Two claims out for one node would fight for one seqno.
create unique index outbox_one_claim on outbox (node) where closed_at is null and kind = 'SubmitClaim';

-- Up to where each account's transactions were turned into facts.
create table cursors (
    account blob primary key,
    lt integer not null,
    hash blob not null
) strict;
