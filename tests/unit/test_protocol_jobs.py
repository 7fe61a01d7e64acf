"""A batch job's ciphertexts: who can open them, what any change does to them, and that the price follows."""

import dataclasses
import hashlib
import secrets

import pytest

from protocol import jobs
from protocol.errors import Code, Malformed, NotAuthentic, OurFault, ReceiptFault
from protocol.job_blob import PIECE_BYTES, open_blob, padded_size, seal_blob, sealed_size
from protocol.job_lines import answer_line, error_line, read_answers, read_lines
from protocol.opening import Endpoint
from protocol.pricing import Stop, Usage, charge
from protocol.sealing import SealingKeyPair
from wrappers.cells import CellError
from wrappers.job import JobSpec, Outcome
from wrappers.receipts import Terms

NETWORK, JOB, JOB_ID = b"N" * 32, b"J" * 32, b"I" * 32
TERMS = Terms(b"m" * 32, 1 << 20, 1 << 19, 1 << 21, 1 << 21, 5)
LINES = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[]}}\n'
ONE, TWO = b"1" * 32, b"2" * 32
PAIRS = {ONE: SealingKeyPair.generate(), TWO: SealingKeyPair.generate()}
INPUT = jobs.JobInput(b"s" * 32, 1000, TERMS, LINES)


def sealed() -> jobs.SealedJob:
    keys = {node: pair.public_key for node, pair in PAIRS.items()}
    return jobs.seal_job(INPUT, lines=1, network=NETWORK, job=JOB, nodes=keys)


def opened(sealed_job: jobs.SealedJob, node: bytes = ONE, **changes) -> jobs.JobInput:
    facts = {"network": NETWORK, "job": JOB, "spec": sealed_job.spec, "ciphertext": sealed_job.ciphertext, **changes}
    wrapped = jobs.wrap_for(sealed_job.spec, sealed_job.wraps, node)
    return jobs.open_job(PAIRS[node], wrapped, **facts)


def test_each_allowed_node_opens_the_one_ciphertext() -> None:
    job = sealed()
    assert opened(job, ONE) == opened(job, TWO) == INPUT
    assert LINES not in job.ciphertext and b"s" * 32 not in job.ciphertext + job.wraps
    assert JobSpec.from_cell(job.spec.to_cell()) == job.spec


def test_g12_a_job_opens_for_nothing_but_what_it_was_sealed_for() -> None:
    job = sealed()
    for change in ({"network": b"n" * 32}, {"job": b"j" * 32}):
        with pytest.raises(NotAuthentic):
            opened(job, **change)
    for name, value in (("size", job.spec.size), ("lines", 2), ("terms", bytes(32))):
        spec = dataclasses.replace(job.spec, **{name: value})
        if spec != job.spec:
            with pytest.raises(NotAuthentic):
                opened(job, spec=spec)
    with pytest.raises(NotAuthentic, match="not sealed to this node"):
        jobs.wrap_for(job.spec, job.wraps, b"3" * 32)
    with pytest.raises(NotAuthentic):
        jobs.open_job(
            PAIRS[TWO],
            jobs.wrap_for(job.spec, job.wraps, ONE),
            spec=job.spec,
            ciphertext=job.ciphertext,
            network=NETWORK,
            job=JOB,
        )


def test_altered_ciphertext_and_wrapped_keys_are_refused() -> None:
    job = sealed()
    broken = bytes((job.ciphertext[0] ^ 1,)) + job.ciphertext[1:]
    with pytest.raises(NotAuthentic, match="not the one that the job names"):
        opened(job, ciphertext=broken)
    # Even where a hash was made to fit, the seal does not hold.
    spec = dataclasses.replace(job.spec, input=hashlib.sha256(broken).digest())
    with pytest.raises(NotAuthentic):
        opened(job, ciphertext=broken, spec=spec)
    with pytest.raises(Malformed, match="not those that the job names"):
        jobs.wrap_for(job.spec, job.wraps[:-1] + bytes((job.wraps[-1] ^ 1,)), ONE)


def test_wrapped_keys_are_strict() -> None:
    packed = sealed().wraps
    rows = jobs.wraps_from_bytes(packed)
    assert jobs.wraps_to_bytes(reversed(rows)) == packed
    twice = jobs.wraps_to_bytes((rows[0], rows[0]))
    for bad in (b"", packed[:-1], packed + b"\0", b"XXXX" + packed[4:], jobs.wraps_to_bytes(()), twice):
        with pytest.raises(Malformed):
            jobs.wraps_from_bytes(bad)
    with pytest.raises(OurFault):
        jobs.seal_job(INPUT, lines=1, network=NETWORK, job=JOB, nodes={})


def test_the_sealed_input_is_strict() -> None:
    data = INPUT.to_bytes()
    assert jobs.JobInput.from_bytes(data) == INPUT and len(data) == padded_size(len(data))
    for bad in (b"", b"\x02" + data[1:], data[:100], data[:-1] + b"\x01"):
        with pytest.raises(Malformed):
            jobs.JobInput.from_bytes(bad)
    with pytest.raises(OurFault):
        dataclasses.replace(INPUT, body=b"").to_bytes()
    with pytest.raises(CellError):
        JobSpec.from_cell(TERMS.to_cell())


# ---- results

USAGE, ANSWERS = Usage(10, 4, 7, 2), b'{"custom_id":"a","response":{"body":{}},"error":null}\n'


def result(job: jobs.SealedJob, **changes) -> tuple[bytes, Outcome]:
    inner = jobs.usage_cell(b"s" * 32, JOB_ID, job.spec, TERMS.model, USAGE, Stop.END, ANSWERS)
    inner = dataclasses.replace(inner, **changes)
    data = jobs.seal_result(b"s" * 32, JOB_ID, job.spec, inner, ANSWERS)
    return data, Outcome(hashlib.sha256(data).digest(), charge(TERMS, USAGE, Stop.END), inner.hash, 0)


def read(job: jobs.SealedJob, data: bytes, outcome: Outcome, secret: bytes = b"s" * 32) -> jobs.Result:
    return jobs.open_result(secret, JOB_ID, job.spec, TERMS, outcome, data)


def test_a_result_opens_for_the_client_and_its_price_follows() -> None:
    job = sealed()
    data, outcome = result(job)
    got = read(job, data, outcome)
    assert (got.answers, got.usage, got.stop) == (ANSWERS, USAGE, Stop.END)
    assert outcome.amount_nano == 6 + 2 + 10 + 4 and ANSWERS not in data


def test_g13_a_result_that_is_not_as_the_chain_says_is_refused() -> None:
    job = sealed()
    data, outcome = result(job)
    with pytest.raises(NotAuthentic, match="not the one that the chain names"):
        read(job, data[:-1] + bytes((data[-1] ^ 1,)), outcome)
    with pytest.raises(ReceiptFault, match="does not open"):
        read(job, data, outcome, secret=b"x" * 32)
    with pytest.raises(ReceiptFault, match="its usage gives"):
        read(job, data, dataclasses.replace(outcome, amount_nano=outcome.amount_nano + 1))
    with pytest.raises(ReceiptFault, match="another usage"):
        read(job, data, dataclasses.replace(outcome, inner=bytes(32)))
    for change in ({"model": bytes(32)}, {"request": bytes(32)}, {"response": bytes(32)}, {"salt": bytes(32)}):
        with pytest.raises(ReceiptFault, match="not bound"):
            read(job, *result(job, **change))
    with pytest.raises(ReceiptFault, match="impossible"):
        read(job, *result(job, cached_tokens=11))


# ---- blobs


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_blobs_open_whole_or_not_at_all(size: int) -> None:
    key, plain = secrets.token_bytes(32), secrets.token_bytes(size)
    blob = seal_blob(key, plain)
    assert open_blob(key, blob) == plain and len(blob) == sealed_size(size)
    step = PIECE_BYTES + 16
    bad = [blob[:-1], blob + b"\0", b"", blob[step:] or b"\0" * 16, bytes((blob[0] ^ 1,)) + blob[1:]]
    if size > 2 * PIECE_BYTES:
        bad += [blob[:step], blob[step : 2 * step] + blob[:step] + blob[2 * step :], blob[: 2 * step]]
    for one in bad:
        with pytest.raises(NotAuthentic):
            open_blob(key, one)


def test_padding_hides_the_size_at_a_bounded_price() -> None:
    sizes = [*range(1, 3000), 10**5 + 1, 10**6 + 1, jobs.MAX_BODY_BYTES]
    assert all(size <= padded_size(size) <= max(256, size + size // 8) for size in sizes)
    assert len({padded_size(size) for size in range(10_000, 20_000)}) < 50


# ---- lines


def test_lines_are_read_strictly() -> None:
    line = read_lines(LINES + b"\n  \n")[0]
    assert (line.custom_id, line.endpoint, line.body) == ("a", Endpoint.CHAT_COMPLETIONS, {"messages": []})
    assert read_lines(line.to_json()) == (line,)
    good = LINES.decode()
    for bad in (
        "",
        "secret prompt",
        "[]",
        good.replace('"method":"POST",', ""),
        good.replace("POST", "GET"),
        good.replace("/v1/chat/completions", "/v1/embeddings"),
        good.replace('"a"', '""'),
        good.replace('{"messages":[]}', "[]"),
        good + good,
        good.replace('"url"', '"custom_id":"b","url"'),
    ):
        with pytest.raises(Malformed) as raised:
            read_lines(bad.encode())
        assert "secret" not in str(raised.value)


def test_answers_are_those_of_the_lines() -> None:
    data = answer_line(1, "a", {"choices": []}) + error_line(2, "b", Code.BAD_REQUEST, "no")
    first, second = read_answers(data, ["a", "b"])
    assert first.response == {"choices": []} and first.error is None
    assert second.response is None and second.error == {"code": "bad-request", "message": "no"}
    for asked, bad in ((["a"], data), (["b", "a"], data), (["a"], b"x\n"), (["a"], b'{"custom_id":"a"}\n')):
        with pytest.raises(Malformed):
            read_answers(bad, asked)
