"""Client and enclave keep the same books, whatever the network loses, repeats or reorders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.account import MAX_REQUEST_SECONDS, ClientAccount, Promise, Standing
from protocol.account_codec import account_from_bytes, account_to_bytes
from protocol.commitments import NOTHING, inner_salt, request_commitment
from protocol.enclave_account import EnclaveAccount
from protocol.errors import Code, Equivocation, Malformed, NotAuthentic, OurFault, ReceiptFault, WireError
from protocol.frames import Refusal
from protocol.pricing import Stop, maximum
from protocol.receipts import UNMEASURED, IssuedReceipt, SignedReceipt
from wrappers.receipts import InnerReceipt, Receipt, Terms, Voucher
from wrappers.signed import sign

ALLOTMENT, NODE_ID = b"a" * 32, b"i" * 32
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
TERMS = Terms(b"m" * 32, 1 << 20, 1 << 18, 1 << 21, 1 << 22, 5)
CHEAP = Terms(b"m" * 32, 1, 1, 1, 1, 0)
RESPONSE = b"R" * 32
BODY = b"{}"


@dataclass(frozen=True)
class Ask:
    """One request as the machine sends it."""

    request_id: bytes
    voucher: Voucher
    maximum_nano: int
    terms: Terms
    acked_seq: int


def secret_of(request_id: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in request_id)


def promise_of(request_id: bytes, maximum_nano: int, terms: Terms = TERMS, expires_at: int = 1000) -> Promise:
    secret = secret_of(request_id)
    commitment = request_commitment(secret, request_id, BODY)
    return Promise(request_id, maximum_nano, terms, inner_salt(secret), commitment, expires_at)


def inner_of(request_id: bytes, prompt: int, completion: int, stop: Stop = Stop.END, **change: Any) -> InnerReceipt:
    secret = secret_of(request_id)
    commitment = request_commitment(secret, request_id, BODY)
    inner = InnerReceipt(inner_salt(secret), TERMS.model, prompt, 0, completion, 0, stop, commitment, RESPONSE, NOTHING)
    return replace(inner, **change)


def ask(client: ClientAccount, request_id: bytes, maximum_nano: int, terms: Terms = TERMS) -> tuple[ClientAccount, Ask]:
    client = client.promise(promise_of(request_id, maximum_nano, terms))
    return client, Ask(request_id, client.voucher(terms.hash), maximum_nano, terms, client.seq)


def admit(enclave: EnclaveAccount, one: Ask, limit: int = 64) -> tuple[EnclaveAccount, Refusal | None]:
    return enclave.admit(
        one.voucher,
        bytes(64),
        request_id=one.request_id,
        maximum_nano=one.maximum_nano,
        terms=one.terms,
        acked_seq=one.acked_seq,
        max_unacked=limit,
    )


CLIENT = ClientAccount(ALLOTMENT, NODE_ID, PUBLIC)
ENCLAVE = EnclaveAccount(ALLOTMENT, NODE_ID, PUBLIC)
IDS = [bytes([i]) * 32 for i in range(1, 9)]


def served(count: int) -> tuple[ClientAccount, EnclaveAccount, list[IssuedReceipt]]:
    """`count` requests of at most 100 nanoTON, each ended with 30, none received."""
    client, enclave, receipts = CLIENT, ENCLAVE, []
    for request_id in IDS[:count]:
        client, one = ask(client, request_id, 100)
        enclave, refusal = admit(enclave, one)
        assert refusal is None
        enclave, issued = enclave.issue(request_id, inner_of(request_id, 10, 10), KEY)
        receipts.append(issued)
    return client, enclave, receipts


LIMIT = 4


class Books(RuleBasedStateMachine):
    """An honest client and an honest enclave with a relayer in between that loses, repeats and reorders."""

    @initialize()
    def start(self) -> None:
        self.client, self.enclave = CLIENT, ENCLAVE
        self.count = 0
        self.now = 0
        self.totals = {0: 0}
        self.signed_cap = 0
        self.asks: list[Ask] = []
        self.answers: list[IssuedReceipt] = []
        self.refusals: list[tuple[bytes, Refusal]] = []
        self.opened: dict[bytes, Code | None] = {}

    def send(self, maximum_nano: int, terms: Terms) -> Ask:
        self.count += 1
        request_id = self.count.to_bytes(32, "big")
        self.client = self.client.promise(promise_of(request_id, maximum_nano, terms, self.now + 100))
        voucher = self.client.voucher(terms.hash)
        self.signed_cap = max(self.signed_cap, voucher.cap_nano)
        return Ask(request_id, voucher, maximum_nano, terms, self.client.seq)

    @rule(prompt=st.integers(0, 50), completion=st.integers(0, 50), terms=st.sampled_from([TERMS, CHEAP]))
    def asks_one(self, prompt: int, completion: int, terms: Terms) -> None:
        self.asks.append(self.send(maximum(terms, prompt, completion), terms))

    def deliver(self, one: Ask) -> Refusal | None:
        """As the worker does: an id is opened once, its refusal is repeated."""
        if one.request_id in self.opened:
            refused = self.opened[one.request_id]
            return Refusal(WireError.of(refused or Code.ALREADY_OPENED), self.enclave.missed)
        self.enclave, refusal = admit(self.enclave, one, LIMIT)
        self.opened[one.request_id] = refusal.error.code if refusal else None
        return refusal

    @precondition(lambda self: self.asks)
    @rule(data=st.data(), keep=st.booleans())
    def arrives(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.asks) - 1))
        one = self.asks[index] if keep else self.asks.pop(index)
        repeated = one.request_id in self.opened
        if refusal := self.deliver(one):
            assert refusal.error.code in (Code.BEHIND, Code.RATE_LIMITED, Code.ALREADY_OPENED)
            assert refusal.error.code is not Code.BEHIND or refusal.missed or repeated
            self.refusals.append((one.request_id, refusal))

    @precondition(lambda self: self.enclave.admitted)
    @rule(data=st.data(), stop=st.sampled_from(list(Stop)))
    def ends(self, data: st.DataObject, stop: Stop) -> None:
        admitted = data.draw(st.sampled_from(self.enclave.admitted))
        prompt = data.draw(st.integers(0, 60))
        completion = data.draw(st.integers(0, 60))
        while maximum(admitted.terms, prompt, completion) > admitted.maximum_nano:
            prompt, completion = prompt // 2, completion // 2
        inner = inner_of(admitted.request_id, prompt, completion, stop)
        self.enclave, issued = self.enclave.issue(admitted.request_id, inner, KEY)
        assert issued.signed.receipt.amount_nano <= admitted.maximum_nano
        self.totals[issued.signed.receipt.seq] = self.enclave.cumulative_nano
        self.answers.append(issued)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), keep=st.booleans())
    def receives(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.answers) - 1))
        issued = self.answers[index] if keep else self.answers.pop(index)
        self.client = self.client.receive(issued, RESPONSE)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def loses_an_answer(self, data: st.DataObject) -> None:
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))

    @precondition(lambda self: self.refusals)
    @rule(data=st.data())
    def takes_a_refusal(self, data: st.DataObject) -> None:
        request_id, refusal = self.refusals.pop(data.draw(st.integers(0, len(self.refusals) - 1)))
        self.client = self.client.refused(request_id, refusal)

    @precondition(lambda self: not self.enclave.admitted)
    @rule()
    def a_day_passes(self) -> None:
        """Sealing keys end: what is still on its way can never be opened."""
        self.asks.clear()
        self.now += 100 + MAX_REQUEST_SECONDS + 1
        self.client = self.client.expire(self.now)

    @rule()
    def the_client_restarts(self) -> None:
        self.client = account_from_bytes(account_to_bytes(self.client))

    @precondition(lambda self: not self.enclave.admitted)
    @rule()
    def catches_up(self) -> None:
        """However much was lost: one sealed refusal at most stands between the client and service."""
        self.asks.clear()
        one = self.send(maximum(TERMS, 5, 5), TERMS)
        if refusal := self.deliver(one):
            assert refusal.error.code is Code.BEHIND
            self.client = self.client.refused(one.request_id, refusal)
            assert self.client.acked_nano == self.enclave.cumulative_nano
            one = self.send(maximum(TERMS, 5, 5), TERMS)
            assert self.deliver(one) is None
        assert self.enclave.admitted[-1].request_id == one.request_id

    @invariant()
    def g5_the_enclave_never_bills_over_what_was_signed(self) -> None:
        if self.count:
            assert self.enclave.exposed_nano <= self.enclave.cap_nano <= self.signed_cap

    @invariant()
    def both_sides_agree(self) -> None:
        if self.count:
            assert self.client.seq <= self.enclave.seq
            assert self.client.acked_nano == self.totals[self.client.seq]
            assert self.enclave.acked_seq <= self.client.seq

    @invariant()
    def the_cap_is_never_a_lump(self) -> None:
        if self.count:
            assert self.client.cap_nano <= self.client.acked_nano + sum(
                promise.maximum_nano for promise in self.client.promises
            )

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        for admitted in self.enclave.admitted:
            self.enclave, _ = self.enclave.issue(admitted.request_id, inner_of(admitted.request_id, 0, 0), KEY)
        self.client = self.client.receive_missed(self.enclave.unacked)
        assert self.client.acked_nano == self.enclave.cumulative_nano
        assert all(promise.standing is not Standing.HELD for promise in self.client.promises)


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


def test_g5_the_cap_is_acked_plus_maxima_and_falls_to_the_amount() -> None:
    client, _, receipts = served(2)
    assert client.cap_nano == 200
    later = client.receive(receipts[1])
    assert (later.acked_nano, later.cap_nano) == (0, 130), "the second is held at its amount until the first is here"
    both = later.receive(receipts[0])
    assert (both.acked_nano, both.cap_nano, both.seq, both.promises) == (60, 60, 2, ())


def test_receiving_twice_changes_nothing() -> None:
    client, _, receipts = served(2)
    held = client.receive(receipts[1])
    assert held.receive(receipts[1]) == held
    done = held.receive(receipts[0])
    assert done.receive_missed(tuple(receipts)) == done


def resigned(issued: IssuedReceipt, inner: InnerReceipt | None = None, **change: Any) -> IssuedReceipt:
    inner = inner or issued.inner
    receipt: Receipt = replace(issued.signed.receipt, inner=inner.hash, **change)
    return IssuedReceipt(issued.request_id, SignedReceipt(receipt, sign(receipt, KEY)), inner)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"allotment": bytes(32)}, "another allotment"),
        ({"node": bytes(32)}, "another allotment, node"),
        ({"terms": bytes(32)}, "or terms"),
        ({"amount_nano": 101}, "over the maximum"),
        ({"amount_nano": 29}, "usage x terms is 30"),
        ({"amount_nano": 31}, "usage x terms is 30"),
        ({"cumulative_nano": 31}, "another total"),
        ({"previous": b"x" * 32}, "does not follow"),
    ],
)
def test_g13_receipts_that_do_not_add_up_are_refused(change: dict[str, Any], fault: str) -> None:
    client, _, [issued] = served(1)
    with pytest.raises(ReceiptFault, match=fault):
        client.receive(resigned(issued, **change))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"request": bytes(32)}, "another request"),
        ({"response": bytes(32)}, "another answer"),
        ({"model": b"x" * 32}, "another model"),
        ({"stop": 77}, "stop reason"),
        ({"cached_tokens": 11}, "impossible"),
        ({"prompt_tokens": 11}, "usage x terms"),
        ({"completion_tokens": 11}, "usage x terms"),
        ({"stop": Stop.FAILED, "completion_tokens": 0}, "usage x terms is 0"),
    ],
)
def test_g13_inner_receipts_that_lie_are_refused(change: dict[str, Any], fault: str) -> None:
    client, _, [issued] = served(1)
    with pytest.raises(ReceiptFault, match=fault):
        client.receive(resigned(issued, replace(issued.inner, **change)), RESPONSE)


def test_an_unmeasured_model_is_named_not_refused() -> None:
    client, _, [issued] = served(1)
    assert client.receive(resigned(issued, replace(issued.inner, model=UNMEASURED)), RESPONSE).seq == 1


def test_nobody_is_blamed_without_a_signature() -> None:
    client, _, receipts = served(2)
    forged = replace(receipts[0], signed=replace(receipts[0].signed, signature=bytes(64)))
    swapped = replace(receipts[0], request_id=receipts[1].request_id)
    unsigned = replace(receipts[0], inner=replace(receipts[0].inner, response=bytes(32)))
    for issued in (forged, swapped, unsigned, replace(receipts[0], inner=receipts[1].inner)):
        with pytest.raises(NotAuthentic):
            client.receive(issued)
    receipt = receipts[0].signed.receipt
    foreign = replace(receipts[0], signed=SignedReceipt(receipt, sign(receipt, OTHER_KEY)))
    with pytest.raises(NotAuthentic):
        client.receive(foreign)


def test_equivocation_is_caught_with_its_evidence() -> None:
    client, _, receipts = served(2)
    held = client.receive(receipts[1])
    second = resigned(receipts[0], seq=2)
    with pytest.raises(Equivocation) as caught:
        held.receive(second)
    assert SignedReceipt.from_bytes(caught.value.first) == receipts[1].signed
    assert SignedReceipt.from_bytes(caught.value.second) == second.signed
    with pytest.raises(Equivocation):
        held.receive(resigned(receipts[1], cumulative_nano=61))
    done = held.receive(receipts[0])
    done, _ = ask(done, IDS[5], 100)
    replayed = resigned(replace(receipts[1], request_id=IDS[5]), inner_of(IDS[5], 10, 10))
    with pytest.raises(ReceiptFault, match="number 2 before"):
        done.receive(replayed)


def test_a_receipt_for_a_request_never_made_is_refused() -> None:
    client, _, [issued] = served(1)
    with pytest.raises(ReceiptFault, match="never made"):
        CLIENT.receive(issued)
    assert client.receive(issued).seq == 1


def test_a_refusal_frees_the_promise_but_not_what_ran() -> None:
    client, enclave, [issued] = served(1)
    again = WireError.of(Code.ALREADY_OPENED)
    assert client.refused(IDS[0], Refusal(again)) == client, "it ran: the promise stays"
    assert client.refused(IDS[0], Refusal(again, (issued,))).acked_nano == 30
    busy = WireError.of(Code.RATE_LIMITED)
    waiting, _ = ask(client, IDS[1], 100)
    assert waiting.cap_nano == 200
    assert waiting.refused(IDS[1], Refusal(busy)) == client
    behind = waiting.refused(IDS[1], Refusal(WireError.of(Code.BEHIND), enclave.missed))
    assert (behind.acked_nano, behind.cap_nano) == (30, 30)


def test_a_refusal_of_what_was_billed_is_a_fault() -> None:
    client, _, receipts = served(2)
    held = client.receive(receipts[1])
    with pytest.raises(ReceiptFault, match="refuses a request"):
        held.refused(IDS[1], Refusal(WireError.of(Code.RATE_LIMITED)))


def test_an_expired_promise_is_not_counted_but_its_receipt_is_taken() -> None:
    client, _, [issued] = served(1)
    at_the_border = client.expire(1000 + MAX_REQUEST_SECONDS)
    assert at_the_border.cap_nano == 100
    expired = client.expire(1000 + MAX_REQUEST_SECONDS + 1)
    assert expired.cap_nano == 0
    assert expired.receive(issued).acked_nano == 30


def test_the_client_promises_nothing_impossible() -> None:
    client, _ = ask(CLIENT, IDS[0], 100)
    with pytest.raises(OurFault, match="in use"):
        ask(client, IDS[0], 100)
    with pytest.raises(OurFault, match="minimum"):
        ask(client, IDS[1], 4)
    with pytest.raises(OurFault, match="64 bits"):
        ask(client, IDS[1], (1 << 64) - 1)


def refusal_of(change: dict[str, Any], limit: int = 64) -> Refusal | None:
    """After two requests unacked, a third with something wrong."""
    client, enclave, receipts = served(2)
    client = client.receive_missed(tuple(receipts[:1]))
    client, good = ask(client, IDS[2], 100)
    voucher = replace(good.voucher, **{k: v for k, v in change.items() if hasattr(good.voucher, k) and k != "terms"})
    rest = {k: v for k, v in change.items() if k in ("acked_seq", "maximum_nano", "terms", "request_id")}
    return admit(enclave, replace(good, voucher=voucher, **rest), limit)[1]


@pytest.mark.parametrize(
    ("change", "limit", "code"),
    [
        ({}, 64, None),
        ({"cap_nano": 160}, 64, None),  # 60 billed + 100 asked
        ({"cap_nano": 159}, 64, None),  # an earlier voucher had signed more
        ({"maximum_nano": 171}, 64, Code.BEHIND),
        ({"maximum_nano": 4}, 64, Code.MAXIMUM_TOO_LOW),
        ({}, 1, Code.BEHIND),
        ({"acked_nano": 61}, 64, Code.VOUCHER_INVALID),
        ({"cap_nano": 29}, 64, Code.VOUCHER_INVALID),  # accepts more than it allows
        ({"acked_nano": 29}, 64, Code.VOUCHER_INVALID),
        ({"acked_seq": 2}, 64, Code.VOUCHER_INVALID),
        ({"acked_seq": 3}, 64, Code.VOUCHER_INVALID),
        ({"acked_seq": 0}, 64, Code.VOUCHER_INVALID),
        ({"terms": CHEAP}, 64, Code.VOUCHER_INVALID),
    ],
)
def test_g5_the_enclave_serves_only_within_the_caps(change: dict[str, Any], limit: int, code: Code | None) -> None:
    refusal = refusal_of(change, limit)
    assert (refusal and refusal.error.code) == code
    if code is Code.BEHIND:
        assert refusal is not None and [one.signed.receipt.seq for one in refusal.missed] == [2]


def test_g5_of_two_vouchers_with_one_cap_the_one_that_accepts_more_is_kept() -> None:
    """Under a key that was compromised it decides what is paid."""
    client, enclave, (issued,) = served(1)
    client = client.receive(issued)
    _, same = ask(client, IDS[1], 70)
    enclave, refusal = admit(enclave, same)
    assert refusal is None and same.voucher.cap_nano == 100
    assert enclave.voucher == same.voucher and same.voucher.acked_nano == 30
    late = replace(same, request_id=IDS[3], voucher=replace(same.voucher, acked_nano=0), acked_seq=0)
    assert admit(enclave, late)[0].voucher == same.voucher, "one that was overtaken on its way"
    _, less = ask(client, IDS[2], 10)
    assert admit(enclave, less)[0].voucher == same.voucher, "a lower cap would not cover what runs"


def test_a_client_at_the_limit_with_nothing_to_ack_is_told_to_wait() -> None:
    client, one = ask(CLIENT, IDS[0], 100)
    enclave, _ = admit(ENCLAVE, one, 1)
    _, other = ask(client, IDS[1], 100)
    _, refusal = admit(enclave, other, 1)
    assert refusal is not None and refusal.error.code is Code.RATE_LIMITED and not refusal.missed


def test_a_cap_too_low_without_receipts_to_blame_says_so() -> None:
    _, one = ask(CLIENT, IDS[0], 100)
    _, refusal = admit(ENCLAVE, replace(one, maximum_nano=101))
    assert refusal is not None and refusal.error.code is Code.CAP_TOO_LOW and "needed 101" in refusal.error.cause


def test_g5_maxima_in_flight_use_up_the_cap() -> None:
    """A client that forgets what it promised gets no second request for the same cap."""
    _, one = ask(CLIENT, IDS[0], 100)
    enclave, _ = admit(ENCLAVE, one)
    _, forgetful = ask(CLIENT, IDS[1], 100)
    assert forgetful.voucher.cap_nano == 100
    _, refusal = admit(enclave, forgetful)
    assert refusal is not None and refusal.error.code is Code.CAP_TOO_LOW


def test_an_old_ack_with_an_impossible_amount_is_refused() -> None:
    client, enclave, receipts = served(2)
    client, one = ask(client.receive_missed(tuple(receipts)), IDS[2], 100)
    enclave, refusal = admit(enclave, one)
    assert refusal is None and enclave.acked_seq == 2
    _, late = ask(client, IDS[3], 100)
    late = replace(late, acked_seq=1, voucher=replace(late.voucher, acked_nano=61))
    _, refusal = admit(enclave, late)
    assert refusal is not None and refusal.error.code is Code.VOUCHER_INVALID


def test_a_repeated_request_in_flight_is_not_admitted_twice() -> None:
    client, one = ask(CLIENT, IDS[0], 100)
    enclave, _ = admit(ENCLAVE, one)
    _, richer = ask(client, IDS[1], 900)
    again, refusal = admit(enclave, replace(one, voucher=richer.voucher))
    assert refusal is not None and refusal.error.code is Code.ALREADY_OPENED
    assert again.admitted == enclave.admitted


def test_requests_that_overtake_each_other_are_served() -> None:
    client, first = ask(CLIENT, IDS[0], 100)
    _, second = ask(client, IDS[1], 100)
    enclave, refusal = admit(ENCLAVE, second)
    assert refusal is None
    enclave, refusal = admit(enclave, first)
    assert refusal is None and enclave.cap_nano == 200 and enclave.voucher == second.voucher


def test_receipts_of_zero_are_acked_by_seq() -> None:
    client, one = ask(CLIENT, IDS[0], 100)
    enclave, _ = admit(ENCLAVE, one)
    enclave, zero = enclave.issue(IDS[0], inner_of(IDS[0], 10, 0, Stop.FAILED), KEY)
    assert zero.signed.receipt.amount_nano == 0
    _, lost = ask(client, IDS[1], 100)
    enclave, _ = admit(enclave, lost)
    assert enclave.unacked == (zero,), "an amount of 0 accepts nothing by itself"
    client = client.receive(zero)
    _, after = ask(client, IDS[2], 100)
    enclave, refusal = admit(enclave, after)
    assert refusal is None and enclave.unacked == ()


def test_the_enclave_never_bills_over_the_maximum_nor_twice() -> None:
    _, one = ask(CLIENT, IDS[0], 100)
    enclave, _ = admit(ENCLAVE, one)
    with pytest.raises(OurFault, match="over the request's maximum"):
        enclave.issue(IDS[0], inner_of(IDS[0], 101, 0), KEY)
    with pytest.raises(OurFault, match="impossible"):
        enclave.issue(IDS[0], inner_of(IDS[0], 1, 0, cached_tokens=2), KEY)
    enclave, _ = enclave.issue(IDS[0], inner_of(IDS[0], 100, 0), KEY)
    with pytest.raises(OurFault, match="in flight"):
        enclave.issue(IDS[0], inner_of(IDS[0], 100, 0), KEY)
    with pytest.raises(OurFault, match="another account"):
        admit(replace(enclave, key=bytes(32)), one)


def test_stored_accounts_are_strict() -> None:
    client, _, receipts = served(3)
    client = client.receive(receipts[1]).expire(1 << 31)
    data = account_to_bytes(client)
    assert account_from_bytes(data) == client
    assert {promise.standing for promise in client.promises} == {Standing.EXPIRED, Standing.HELD}
    for cut in range(0, len(data), 11):
        with pytest.raises(Malformed):
            account_from_bytes(data[:cut])
    with pytest.raises(Malformed):
        account_from_bytes(data + b"\0")
    with pytest.raises(Malformed, match="version"):
        account_from_bytes(b"\2" + data[1:])
