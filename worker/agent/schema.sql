-- The operator's own books. Everything in here is ciphertext, amounts and signatures: never a prompt, never an answer.
-- A row of `receipts` on disk is money: the enclave sends the last frame of an answer only after it is here.

CREATE TABLE requests (
    request_id BLOB PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('billed', 'answered')),  -- billed -> answered, when the last frame is here
    allotment BLOB NOT NULL,
    key BLOB NOT NULL,
    seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The ciphertext of an answer as strings of frames; kept so that a repeated request is never run twice.
CREATE TABLE answers (
    request_id BLOB PRIMARY KEY REFERENCES requests ON DELETE CASCADE,
    frames BLOB NOT NULL,                   -- up to and including the receipt
    last BLOB                               -- the last frame; null until it was made
) STRICT;

-- One per enclave key and allotment: what it earned, the proof of it, and what the chain has paid.
CREATE TABLE accounts (
    key BLOB NOT NULL,
    allotment BLOB NOT NULL,
    escrow BLOB NOT NULL,
    allotment_epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,                   -- of the latest receipt
    cumulative_nano INTEGER NOT NULL,
    receipt BLOB NOT NULL,
    signature BLOB NOT NULL,
    cap_nano INTEGER NOT NULL,              -- of the voucher with the highest cap
    acked_nano INTEGER NOT NULL,
    terms BLOB NOT NULL,
    voucher_signature BLOB NOT NULL,
    landed_seq INTEGER NOT NULL DEFAULT 0,  -- as the chain shows it
    landed_nano INTEGER NOT NULL DEFAULT 0, -- paid for this key, as the chain shows it
    closed INTEGER NOT NULL DEFAULT 0,      -- the row is gone from the chain, or the key's window is over
    PRIMARY KEY (key, allotment)
) STRICT;

CREATE INDEX accounts_by_allotment ON accounts (allotment);

CREATE TABLE receipts (
    key BLOB NOT NULL,
    allotment BLOB NOT NULL,
    seq INTEGER NOT NULL,
    request_id BLOB NOT NULL UNIQUE,
    amount_nano INTEGER NOT NULL,
    frame BLOB NOT NULL,                    -- as it goes to the client: receipt and signature
    created_at INTEGER NOT NULL,
    PRIMARY KEY (key, allotment, seq),
    FOREIGN KEY (key, allotment) REFERENCES accounts
) STRICT;

-- A release that was signed: under this row no request is served until its seqno on chain has moved on.
CREATE TABLE releases (
    allotment BLOB NOT NULL,
    row_seqno INTEGER NOT NULL,
    allotted_nano INTEGER NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (allotment, row_seqno)
) STRICT;
