-- add_request: a request whose receipt is here
INSERT INTO requests (request_id, state, allotment, key, seq, created_at)
VALUES (:request_id, 'billed', :allotment, :key, :seq, :now);

-- add_answer: its ciphertext so far
INSERT INTO answers (request_id, frames) VALUES (:request_id, :frames);

-- end_answer: the last frame
UPDATE answers SET last = :frame WHERE request_id = :request_id;

-- mark_answered: the ciphertext is whole
UPDATE requests SET state = 'answered' WHERE request_id = :request_id;

-- request: what is known of a request
SELECT requests.state, requests.allotment, requests.key, requests.seq, answers.frames, answers.last
FROM requests LEFT JOIN answers USING (request_id) WHERE request_id = :request_id;

-- drop_answers: ciphertexts that no client can ask for any more
DELETE FROM answers WHERE request_id IN (SELECT request_id FROM requests WHERE created_at < :before);

-- advance_account: the latest receipt under a key and an allotment, and its voucher unless a better one is known
INSERT INTO accounts (key, allotment, escrow, allotment_epoch, seq, cumulative_nano, receipt, signature, cap_nano,
    acked_nano, terms, voucher_signature)
VALUES (:key, :allotment, :escrow, :allotment_epoch, :seq, :cumulative_nano, :receipt, :signature, :cap_nano,
    :acked_nano, :terms, :voucher_signature)
ON CONFLICT (key, allotment) DO UPDATE SET seq = excluded.seq, cumulative_nano = excluded.cumulative_nano,
    receipt = excluded.receipt, signature = excluded.signature,
    (cap_nano, acked_nano, terms, voucher_signature) =
        (SELECT * FROM (SELECT excluded.cap_nano, excluded.acked_nano, excluded.terms, excluded.voucher_signature)
            WHERE excluded.cap_nano >= accounts.cap_nano
        UNION ALL SELECT accounts.cap_nano, accounts.acked_nano, accounts.terms, accounts.voucher_signature LIMIT 1)
WHERE excluded.seq > accounts.seq;

-- add_receipt: one signed receipt
INSERT INTO receipts (key, allotment, seq, request_id, amount_nano, frame, created_at)
VALUES (:key, :allotment, :seq, :request_id, :amount_nano, :frame, :now);

-- mark_landed: what the chain shows of an account; never goes back
UPDATE accounts SET landed_seq = max(landed_seq, :landed_seq), landed_nano = max(landed_nano, :landed_nano),
    closed = max(closed, :closed)
WHERE key = :key AND allotment = :allotment;

-- accounts: what is still owed, most first; with :all every account
SELECT accounts.*, (SELECT min(created_at) FROM receipts WHERE receipts.key = accounts.key
    AND receipts.allotment = accounts.allotment AND receipts.seq > accounts.landed_seq
    AND receipts.amount_nano > 0) AS unlanded_since
FROM accounts WHERE :all OR (closed = 0 AND min(cumulative_nano, cap_nano) > landed_nano)
ORDER BY min(cumulative_nano, cap_nano) - landed_nano DESC;

-- owed_elsewhere: what other keys than this one are owed under an allotment
SELECT coalesce(sum(max(0, min(cumulative_nano, cap_nano) - landed_nano)), 0) AS owed_nano
FROM accounts WHERE allotment = :allotment AND key <> :key AND closed = 0;

-- receipts_after: receipts of an account as they go to clients, oldest first
SELECT accounts.escrow, accounts.allotment_epoch, receipts.frame FROM receipts JOIN accounts USING (key, allotment)
WHERE key = :key AND allotment = :allotment AND receipts.seq > :seq ORDER BY receipts.seq LIMIT :limit;

-- add_release: a release that leaves this machine
INSERT INTO releases (allotment, row_seqno, allotted_nano, signature)
VALUES (:allotment, :row_seqno, :allotted_nano, :signature) ON CONFLICT DO NOTHING;

-- is_released: whether a release was signed for this state of a row, or a later one
SELECT 1 FROM releases WHERE allotment = :allotment AND row_seqno >= :row_seqno LIMIT 1;

-- release: the release signed for this state of a row, if any
SELECT allotted_nano, signature FROM releases WHERE allotment = :allotment AND row_seqno = :row_seqno;

-- totals: what was earned so far, and how much of it the chain has paid
SELECT count(*) AS receipts, coalesce(sum(amount_nano), 0) AS earned_nano FROM receipts;

-- landed_total: the part that the chain has paid
SELECT coalesce(sum(landed_nano), 0) AS landed_nano FROM accounts;
