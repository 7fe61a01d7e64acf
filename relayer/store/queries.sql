-- Named queries. `-- name:` begins one; parameters are named. Python holds no SQL.

-- name: get_meta
select value from meta where name = :name;

-- name: put_meta
insert into meta (name, value) values (:name, :value) on conflict (name) do update set value = excluded.value;

-- name: insert_fact
insert or ignore into facts (key, kind, body, at) values (:key, :kind, :body, :at);

-- name: all_facts
select kind, body from facts order by id;

-- name: get_request
select body from requests where request_id = :id;

-- name: put_request
insert into requests (request_id, status, node, escrow, ended_at, body)
values (:id, :status, :node, :escrow, :ended_at, :body)
on conflict (request_id) do update
set status = excluded.status, node = excluded.node, escrow = excluded.escrow, ended_at = excluded.ended_at,
    body = excluded.body;

-- name: open_requests
select body from requests where status in ('admitted', 'receipted') order by rowid;

-- name: all_requests
select body from requests order by request_id;

-- name: get_tally
select body from tallies where allotment = :allotment and enclave_key = :enclave_key;

-- name: put_tally
insert into tallies (allotment, enclave_key, node, escrow, unclaimed_nano, body)
values (:allotment, :enclave_key, :node, :escrow, :unclaimed_nano, :body)
on conflict (allotment, enclave_key) do update set unclaimed_nano = excluded.unclaimed_nano, body = excluded.body;

-- name: unclaimed_tallies
select body from tallies where unclaimed_nano > 0 order by node;

-- name: tallies_of_escrow
select body from tallies where escrow = :escrow;

-- name: all_tallies
select body from tallies order by allotment, enclave_key;

-- name: escrows_with_receipts
select distinct escrow from tallies where unclaimed_nano > 0;

-- name: get_settlement
select body from settlements where node = :id;

-- name: put_settlement
insert into settlements (node, phase, body) values (:id, :phase, :body)
on conflict (node) do update set phase = excluded.phase, body = excluded.body;

-- name: all_settlements
select body from settlements order by node;

-- name: insert_receipt
insert or ignore into receipts (allotment, enclave_key, seq, hash, escrow, node, cumulative_nano, payload, at)
values (:allotment, :enclave_key, :seq, :hash, :escrow, :node, :cumulative_nano, :payload, :at);

-- name: receipts_after
select allotment, enclave_key, seq, node, cumulative_nano, payload from receipts
where escrow = :escrow and allotment = :allotment and enclave_key = :enclave_key and seq > :after
order by seq limit :limit;

-- name: receipts_of_escrow
select allotment, enclave_key, seq, node, cumulative_nano, payload from receipts
where escrow = :escrow order by allotment, enclave_key, seq limit :limit;

-- name: open_effect
insert or ignore into outbox (key, kind, node, body, opened_at) values (:key, :kind, :node, :body, :at);

-- name: open_effects
select key, kind, body from outbox where closed_at is null order by id;

-- name: open_effects_of_node
select key, kind, body from outbox where closed_at is null and node = :node order by id;

-- name: all_effects
select key, kind, body, closed_at is not null from outbox order by id;

-- name: close_effect
update outbox set closed_at = :at, closed_by = :fact where key = :key and closed_at is null;

-- name: get_cursor
select lt, hash from cursors where account = :account;

-- name: put_cursor
insert into cursors (account, lt, hash) values (:account, :lt, :hash)
on conflict (account) do update set lt = excluded.lt, hash = excluded.hash;

-- name: largest_ask
select coalesce(max(json_extract(body, '$.ask')), 0) from settlements;

-- name: prune_facts
delete from facts where at < :before;

-- name: prune_requests
delete from requests where ended_at > 0 and ended_at < :before;

-- name: prune_receipts
delete from receipts where at < :before and (allotment, enclave_key) in (
    select allotment, enclave_key from tallies where unclaimed_nano = 0
);

-- name: prune_outbox
delete from outbox where closed_at is not null and closed_at < :before;
