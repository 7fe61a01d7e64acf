CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Bags of cells throughout. `shard` is a ShardAccount.
CREATE TABLE IF NOT EXISTS accounts (account BLOB PRIMARY KEY, shard BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS transactions (
    account BLOB NOT NULL,
    lt INTEGER NOT NULL,
    seqno INTEGER NOT NULL,
    boc BLOB NOT NULL,
    PRIMARY KEY (account, lt)
) STRICT;

CREATE INDEX IF NOT EXISTS transactions_by_round ON transactions (seqno);

-- `master` and `shard` are NULL once the round is too old to be served; its ids remain for the transactions in it.
CREATE TABLE IF NOT EXISTS rounds (
    seqno INTEGER PRIMARY KEY,
    now INTEGER NOT NULL,
    start_lt INTEGER NOT NULL,
    end_lt INTEGER NOT NULL,
    master_root_hash BLOB NOT NULL,
    master_file_hash BLOB NOT NULL,
    shard_root_hash BLOB NOT NULL,
    shard_file_hash BLOB NOT NULL,
    master BLOB,
    shard BLOB
) STRICT;

CREATE TABLE IF NOT EXISTS queue (position INTEGER PRIMARY KEY, boc BLOB NOT NULL) STRICT;
