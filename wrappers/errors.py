"""Exit codes of the contracts, with cause and cure, as in contracts/common/errors.fc."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ContractError(IntEnum):
    UNKNOWN_OP = 100
    NOT_ALLOWED = 101
    LOW_VALUE = 102
    WORKCHAIN = 103
    EXOTIC_CELL = 104
    BAD_SIGNATURE = 105
    MAIN_NETWORK = 106

    NOT_BORN = 200
    WRONG_NETWORK = 201
    WRONG_CODE = 202
    BAD_TERMS = 203
    BAD_PARAMETERS = 204
    OPENING_STOPPED = 205
    NO_PROPOSAL = 206
    NOT_READY = 207
    PROPOSAL_OVER = 208
    TOO_MANY_PROPOSALS = 209
    NOT_ENDORSED = 210

    WRONG_SEQNO = 400
    WRONG_TIME = 401
    KEY_ENDED = 402
    LOW_RESERVE = 404
    WRONG_EPOCH = 405
    OLD_VERDICT = 406
    UNBONDING = 407
    TOO_MANY_KEYS = 408
    WRONG_RECEIPT = 409
    NOT_GENUINE = 410
    NOTHING_TO_COLLECT = 411
    TOO_EARLY = 412
    NO_CONSENT = 413
    WRONG_PLATFORM = 414
    DEAD_KEY = 415
    NOT_SERVING = 416
    TOO_MANY_OFFERS = 417
    NO_OFFER = 418

    NO_ROW = 500
    ROW_EXISTS = 501
    TOO_MANY_ROWS = 502
    TOO_MANY_ROW_KEYS = 503
    NOTHING_DUE = 504
    NOT_FREE = 505
    CLOSING = 506
    WRONG_AMOUNT = 507
    NOT_RIPE = 508
    NO_KEY = 509
    NO_NEXT_KEY = 510
    SMALL_SHARES = 511

    JOB_ACCEPTED = 800
    NOT_ACCEPTED = 801
    HAS_RESULT = 802
    NO_RESULT = 803
    TOO_LATE = 804
    NOT_DUE = 805
    OVER_MAXIMUM = 806
    WRONG_PROGRAM = 807
    NOT_COVERED = 808
    OTHER_JOB = 809

    NO_OFFENCE = 700
    WRONG_PROOF = 701
    WRONG_OPENING = 702
    OTHER_RECEIPT = 703
    # committee
    NO_VERIFIER = 900
    NOT_VERIFIED = 901
    OWNER_TAKEN = 902
    COMMITTEE_FULL = 903
    LEAVING = 904
    BOND_LOCKED = 905
    WRONG_QUESTION = 906
    FEW_VERIFIERS = 907
    TOO_MANY_REQUESTS = 908
    ASKED_ALREADY = 909
    NO_REQUEST = 910
    DRAWN_ALREADY = 911
    REQUEST_OVER = 912
    NOT_DRAWN = 913
    ANSWERED_ALREADY = 914
    KEY_CHANGES = 915


@dataclass(frozen=True, slots=True)
class Explanation:
    cause: str
    cure: str


_E = ContractError
EXPLANATIONS: dict[ContractError, Explanation] = {
    _E.UNKNOWN_OP: Explanation("the contract does not know this message", "send one of contracts/schema.tlb"),
    _E.NOT_ALLOWED: Explanation("the sender may not send this message", "send it from the account the schema names"),
    _E.LOW_VALUE: Explanation("the message brings less than it needs", "attach what wrappers.fees states"),
    _E.WORKCHAIN: Explanation("sender or contract is not in workchain 0", "use an account of workchain 0"),
    _E.EXOTIC_CELL: Explanation("a library, proof or pruned cell stands where data is due", "send ordinary cells"),
    _E.BAD_SIGNATURE: Explanation(
        "a signature does not verify", "sign the structure again for this network, account, epoch and seqno"
    ),
    _E.MAIN_NETWORK: Explanation("a test root proves no hardware; the main network refuses it", "use Intel's root"),
    _E.NOT_BORN: Explanation("the contract waits for its genesis, or is past it", "check the account's state first"),
    _E.WRONG_NETWORK: Explanation("the genesis state names another network", "build it for this network's id"),
    _E.WRONG_CODE: Explanation(
        "the registry opens children with other code than the message expects", "read its code hashes, review, resend"
    ),
    _E.BAD_TERMS: Explanation(
        "close timer or shares outside the bounds, a share for nobody or another treasury, an offer of another model",
        "choose terms within the bounds; with shares send allot_shared, without them allot",
    ),
    _E.BAD_PARAMETERS: Explanation("parameters outside the bounds in code", "see contracts/registry/bounds.fc"),
    _E.OPENING_STOPPED: Explanation("the governor has stopped openings of this kind", "wait for a proposal to reopen"),
    _E.NO_PROPOSAL: Explanation("no such action is proposed", "propose it, and execute exactly that"),
    _E.NOT_READY: Explanation("the proposal's time-lock has not run", "wait until it is ready"),
    _E.PROPOSAL_OVER: Explanation("the proposal was ready for two weeks and not executed", "propose it again"),
    _E.TOO_MANY_PROPOSALS: Explanation("eight proposals are pending", "cancel one, or wait until one is over"),
    _E.NOT_ENDORSED: Explanation(
        "too few rebuilders endorsed the image", "let others rebuild it from its sources and endorse the proposal"
    ),
    _E.WRONG_SEQNO: Explanation("another claim landed first", "read the node's seqno and sign again"),
    _E.WRONG_TIME: Explanation("valid_until is past, or more than 120 s ahead", "sign again with a fresh valid_until"),
    _E.KEY_ENDED: Explanation(
        "the key's claim window is over, or the node never had the key", "claim within the window"
    ),
    _E.LOW_RESERVE: Explanation(
        "the node's gas reserve does not cover the claim", "claim fewer entries, or send the node some TON"
    ),
    _E.WRONG_EPOCH: Explanation("the verdict is for another life of this node", "attest again"),
    _E.OLD_VERDICT: Explanation(
        "the verdict is over, without a key, or names no newer block than the last one", "attest again"
    ),
    _E.UNBONDING: Explanation("the node is unbonding: it takes no verdict and no second unbond", "open a new node"),
    _E.TOO_MANY_KEYS: Explanation("the node remembers 32 retired keys", "restart the enclave once windows have ended"),
    _E.WRONG_RECEIPT: Explanation(
        "receipt and entry disagree, or the receipt is for another node, allotment or network", "check the receipt"
    ),
    _E.NOT_GENUINE: Explanation("the payment comes from no escrow or job of this network", "pay through an escrow"),
    _E.NOTHING_TO_COLLECT: Explanation("the node holds nothing above its reserves", "wait for earnings"),
    _E.TOO_EARLY: Explanation("the stake's windows are not over", "wait until NodeState.withdrawable_at"),
    _E.NO_CONSENT: Explanation(
        "the key is new to the node and the release key has not signed for it", "send KeyConsent with the evidence"
    ),
    _E.WRONG_PLATFORM: Explanation(
        "the evidence is from another machine than the node's first", "open a node of its own for that machine"
    ),
    _E.DEAD_KEY: Explanation(
        "the key was marked compromised, or served another image before", "restart the enclave: it makes a new key"
    ),
    _E.NOT_SERVING: Explanation(
        "the key is not the node's attested one now, or the node is unbonding", "let the serving key sign"
    ),
    _E.TOO_MANY_OFFERS: Explanation("a node has at most 16 offers", "drop one first"),
    _E.NO_OFFER: Explanation("the node offers nothing for this model", "see NodeState.offers"),
    _E.NO_ROW: Explanation("nothing is allotted to this node", "allot first, or check the node's address"),
    _E.ROW_EXISTS: Explanation("the node has a row already", "raise it instead"),
    _E.TOO_MANY_ROWS: Explanation("an escrow has at most 16 rows", "release one, or open another escrow"),
    _E.TOO_MANY_ROW_KEYS: Explanation("the row knows 16 keys of this node already", "end the row and allot anew"),
    _E.NOTHING_DUE: Explanation(
        "nothing is left to pay under voucher and allotment", "get a voucher with a higher cap, or a higher allotment"
    ),
    _E.NOT_FREE: Explanation("the amount is more than the free part of the deposit", "top up, or release rows"),
    _E.CLOSING: Explanation("row or account is closing", "wait for it to end, then allot or open again"),
    _E.WRONG_AMOUNT: Explanation("the amount is 0, or outside what the row allows", "choose another amount"),
    _E.NO_KEY: Explanation(
        "no key is named, or one that the row does not keep beside its current one", "name the key that is meant"
    ),
    _E.NOT_RIPE: Explanation(
        "no close timer has run, nor that of a waiting key", "wait until Row.closing_at or NextKey.ready_at"
    ),
    _E.NO_NEXT_KEY: Explanation("no voucher key waits to be put in place", "the owner sends rotate_voucher_key first"),
    _E.SMALL_SHARES: Explanation(
        "a share is not worth its message yet", "wait until more is paid, or until the row ends"
    ),
    _E.JOB_ACCEPTED: Explanation("a node has accepted the job already", "leave it to that node"),
    _E.NOT_ACCEPTED: Explanation("no node has accepted the job", "have the node's accept_job land first"),
    _E.HAS_RESULT: Explanation("the job has its result", "deliver it, or finish the job after the delivery window"),
    _E.NO_RESULT: Explanation("the job has no result yet", "post the result first, or refund after the deadline"),
    _E.TOO_LATE: Explanation("the job's deadline is over, or its grace", "refund the job, and order another"),
    _E.NOT_DUE: Explanation(
        "the job's deadline, grace or delivery window is still running", "wait for the end that JobState names"
    ),
    _E.OVER_MAXIMUM: Explanation("the result costs more than the job's maximum", "bill at most the maximum"),
    _E.WRONG_PROGRAM: Explanation(
        "the refund of an accepted job lacks the program of its node's rare messages", "attach that program"
    ),
    _E.NOT_COVERED: Explanation(
        "the node's stake could leave before the job's deadline, grace and an hour are over",
        "accept later, or order with a deadline within the node's windows",
    ),
    _E.OTHER_JOB: Explanation(
        "the acceptance is for another input or another life of the job", "accept with the job's present epoch and spec"
    ),
    _E.NO_OFFENCE: Explanation("the evidence shows nothing wrong", "keep it: only two receipts, or a wrong sum, count"),
    _E.WRONG_PROOF: Explanation(
        "not a Merkle proof of that entry's root, or the receipt is not in it",
        "prove the receipt under its claim's root",
    ),
    _E.WRONG_OPENING: Explanation(
        "inner receipt or terms are not those the receipt names by hash", "open exactly what the receipt commits to"
    ),
    _E.OTHER_RECEIPT: Explanation(
        "the receipt is for another node, escrow, allotment or seq", "name those that the receipt is for"
    ),
    _E.NO_VERIFIER: Explanation(
        "this owner has no verifier in the committee, or one that lost its bond", "name the owner of a member"
    ),
    _E.NOT_VERIFIED: Explanation(
        "the node is not one that the chain itself verified, or its verdict has ended",
        "attest it anew, then present it",
    ),
    _E.OWNER_TAKEN: Explanation(
        "owner or platform is in the committee with another node, or is leaving", "one node for each owner and machine"
    ),
    _E.COMMITTEE_FULL: Explanation("the committee has as many members as it can hold", "wait until one leaves"),
    _E.LEAVING: Explanation("the member is leaving already", "wait for its bond"),
    _E.BOND_LOCKED: Explanation(
        "the bond is not due: the member has not left, left less than two weeks ago, or lost it",
        "leave first, then wait",
    ),
    _E.WRONG_QUESTION: Explanation(
        "the identity is none, or attested_until is over or more than a week away", "name what the evidence says"
    ),
    _E.FEW_VERIFIERS: Explanation("there are fewer verifiers than seats", "wait until more have presented themselves"),
    _E.TOO_MANY_REQUESTS: Explanation(
        "as many requests are open as the committee can hold", "wait until one is concluded"
    ),
    _E.ASKED_ALREADY: Explanation("a request for this node is open", "conclude it first"),
    _E.NO_REQUEST: Explanation("no request for this node is open", "ask first"),
    _E.DRAWN_ALREADY: Explanation("the verifiers are drawn", "wait for their answers"),
    _E.REQUEST_OVER: Explanation("the deadline of the request is over", "conclude it and ask anew"),
    _E.NOT_DRAWN: Explanation("this owner was not drawn for the request", "leave it to those who were"),
    _E.ANSWERED_ALREADY: Explanation("the verifier has answered", "nothing is left to do"),
    _E.KEY_CHANGES: Explanation(
        "fourteen keys of this member were replaced in the last two weeks",
        "restart the enclave less often; present the next key once the oldest has passed two weeks",
    ),
}


def explain(exit_code: int) -> str:
    """What an exit code means and what to do, for people. Codes below 100 are the TVM's own."""
    try:
        error = ContractError(exit_code)
    except ValueError:
        return f"exit code {exit_code} of the TVM: the message is malformed or ran out of gas"
    explanation = EXPLANATIONS[error]
    return f"{explanation.cause} ({error.name.lower()}, {exit_code}); {explanation.cure}"
