-- The client's own books. One file per client home; every transition is one transaction.

-- network_id, registry, owner, and the version of this schema.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

-- Escrows of this wallet. The newest one that is not closed is used. state: opening, open, closed.
CREATE TABLE escrow (
    number      INTEGER PRIMARY KEY,
    account     BLOB NOT NULL UNIQUE,
    voucher_key BLOB NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('opening', 'open', 'closed'))
) STRICT;

-- Wallet messages on their way: written before they are broadcast, so that none is ever sent twice.
CREATE TABLE payment (
    id         INTEGER PRIMARY KEY,
    kind       TEXT NOT NULL,
    message    BLOB NOT NULL,
    start_lt   INTEGER NOT NULL,
    start_hash BLOB NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('sent', 'landed', 'expired'))
) STRICT;

-- protocol.account state per (allotment, enclave key).
CREATE TABLE account (
    allotment  BLOB NOT NULL,
    key        BLOB NOT NULL,
    escrow     BLOB NOT NULL,
    epoch      TEXT NOT NULL,
    node       BLOB NOT NULL,
    node_epoch TEXT NOT NULL,
    state      BLOB NOT NULL,
    PRIMARY KEY (allotment, key)
) STRICT, WITHOUT ROWID;

-- Requests without an accepted receipt. sealed and secret are all that a repeat of the same id needs.
CREATE TABLE request (
    request_id BLOB PRIMARY KEY,
    allotment  BLOB NOT NULL,
    key        BLOB NOT NULL,
    sealed     BLOB NOT NULL,
    secret     BLOB NOT NULL,
    body       BLOB,
    model      TEXT NOT NULL,
    tier       INTEGER NOT NULL,
    simulated  INTEGER NOT NULL,
    outer      BLOB,
    expires_at INTEGER NOT NULL,
    made_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the client was billed, each with the client's own part of the proof.
CREATE TABLE receipt (
    hash         BLOB PRIMARY KEY,
    allotment    BLOB NOT NULL,
    key          BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    issued       BLOB NOT NULL,
    terms        BLOB NOT NULL,
    maximum_nano TEXT NOT NULL,
    request      BLOB NOT NULL,
    model        TEXT NOT NULL,
    tier         INTEGER NOT NULL,
    simulated    INTEGER NOT NULL,
    answered     INTEGER NOT NULL,
    secret       BLOB,
    body         BLOB,
    answer       BLOB,
    received_at  INTEGER NOT NULL,
    UNIQUE (allotment, key, seq)
) STRICT, WITHOUT ROWID;

-- What proved a signing key when it was used: for checking receipts offline, later.
CREATE TABLE evidence (
    key         BLOB PRIMARY KEY,
    node        BLOB NOT NULL,
    node_epoch  TEXT NOT NULL,
    document    TEXT NOT NULL,
    verified_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nodes that signed something wrong, with the proof. They are not used again.
CREATE TABLE fault (
    id     INTEGER PRIMARY KEY,
    node   BLOB NOT NULL,
    key    BLOB NOT NULL,
    at     INTEGER NOT NULL,
    cause  TEXT NOT NULL,
    first  BLOB,
    second BLOB
) STRICT;
