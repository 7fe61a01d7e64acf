"""Exit codes of the verifier, with cause and cure, as in contracts/attestation/errors.fc."""

from __future__ import annotations

from enum import IntEnum

from wrappers.errors import Explanation
from wrappers.errors import explain as explain_common


class VerifierError(IntEnum):
    BAD_HINT = 600
    FORGED = 601
    BAD_POINT = 602

    BAD_PIECES = 610
    BAD_HEADER = 611
    DEBUG = 615
    WRONG_ENCLAVE = 616
    OLD_ENCLAVE = 617

    BAD_CERTIFICATE = 620
    BAD_TIME = 621
    EXPIRED = 622
    REVOKED = 623
    NO_AUTHORITY = 624
    BAD_LIST = 625
    WRONG_SERIALS = 626
    WRONG_PART = 627

    UNKNOWN_PLATFORM = 630
    OLD_PLATFORM = 631
    OLD_MODULE = 632
    REFUSED_STATUS = 633
    BAD_STATEMENT = 634
    NOT_NEWER = 635
    WRONG_NUMBER = 636
    BARRED = 637

    WRONG_REPORT_DATA = 640
    OLD_BLOCK = 641
    UNKNOWN_IMAGE = 642
    WRONG_LAUNCH = 643
    WRONG_ATTRIBUTES = 644
    DENIED = 645
    PLATFORM_TAKEN = 646
    REVOKED_IMAGE = 648


_E = VerifierError
EXPLANATIONS: dict[VerifierError, Explanation] = {
    _E.BAD_HINT: Explanation("a hint of a signature check is wrong", "build the witness with attestation.witness"),
    _E.FORGED: Explanation("a signature does not cover these bytes under this key", "send the genuine, unchanged data"),
    _E.BAD_POINT: Explanation("a key is not on P-256", "send the genuine, unchanged data"),
    _E.BAD_PIECES: Explanation("a part of the witness has the wrong size", "build it with attestation.witness"),
    _E.BAD_HEADER: Explanation("the quote is no TDX quote of version 4 or 5", "quote from a TDX guest"),
    _E.DEBUG: Explanation("the quoting enclave runs in debug mode", "use Intel's production quoting enclave"),
    _E.WRONG_ENCLAVE: Explanation(
        "the quoting enclave is not the one of Intel's QE identity", "use Intel's production quoting enclave"
    ),
    _E.OLD_ENCLAVE: Explanation("the quoting enclave is below every level of Intel's", "update the DCAP packages"),
    _E.BAD_CERTIFICATE: Explanation("a certificate is not laid out as Intel's are", "send Intel's certificate"),
    _E.BAD_TIME: Explanation("a time is not in the form that Intel uses", "send Intel's document"),
    _E.EXPIRED: Explanation(
        "a certificate, list or statement is not valid now", "bring the current collateral to the chain, then resend"
    ),
    _E.REVOKED: Explanation("the certificate is on its authority's revocation list", "none: Intel revoked it"),
    _E.NO_AUTHORITY: Explanation(
        "the chain has no valid certificate of this authority", "send set_authority with Intel's current one"
    ),
    _E.BAD_LIST: Explanation("the revocation list is not laid out as Intel's are", "send Intel's list"),
    _E.WRONG_SERIALS: Explanation(
        "the set of serials is not exactly that of the list", "build the message with attestation.onchain"
    ),
    _E.WRONG_PART: Explanation(
        "no revocation list waits for this part now",
        "nothing if somebody else brought it; else send update_crl first, then the parts from the last to the second",
    ),
    _E.UNKNOWN_PLATFORM: Explanation(
        "the chain has no TCB info for this FMSPC and PCE", "send update_tcb for it, then resend"
    ),
    _E.OLD_PLATFORM: Explanation(
        "no matching TCB level found: the platform is below every level of Intel's", "update BIOS and microcode"
    ),
    _E.OLD_MODULE: Explanation("the TDX module is unknown, or below every level of Intel's", "update the TDX module"),
    _E.REFUSED_STATUS: Explanation(
        "the TCB status is one that the network does not accept", "update the platform to UpToDate"
    ),
    _E.BAD_STATEMENT: Explanation("the values cannot be Intel's text", "build the message with attestation.onchain"),
    _E.NOT_NEWER: Explanation("the chain has this one already, or a newer one", "nothing: it is done"),
    _E.WRONG_NUMBER: Explanation(
        "the evaluation number is outside the network's bounds", "use collateral of Intel's standard set"
    ),
    _E.BARRED: Explanation(
        "the governor dropped this platform type (FMSPC)", "use other hardware, or wait until governance restores it"
    ),
    _E.WRONG_REPORT_DATA: Explanation(
        "REPORTDATA binds another network, node, epoch, key, GPU evidence or block", "quote for this node"
    ),
    _E.OLD_BLOCK: Explanation(
        "the block is too old, or not newer than the platform's release", "quote with a recent block"
    ),
    _E.UNKNOWN_IMAGE: Explanation("the measurement is not on the allow-list", "run a released image"),
    _E.WRONG_LAUNCH: Explanation(
        "MRCONFIGID, MROWNER or MROWNERCONFIG are not the image's", "start the guest as the release says"
    ),
    _E.WRONG_ATTRIBUTES: Explanation(
        "TD attributes or XFAM are outside the policy (debug, for one)", "start the guest as the release says"
    ),
    _E.DENIED: Explanation("the platform is on the deny-list", "none on this platform"),
    _E.PLATFORM_TAKEN: Explanation("the platform serves another node", "unbond that node first"),
    _E.REVOKED_IMAGE: Explanation("the image is retired or compromised", "run a released image"),
}


def explain(exit_code: int) -> str:
    """What an exit code of the attestation contract means and what to do."""
    try:
        error = VerifierError(exit_code)
    except ValueError:
        return explain_common(exit_code)
    explanation = EXPLANATIONS[error]
    return f"{explanation.cause} ({error.name.lower()}, {exit_code}); {explanation.cure}"
