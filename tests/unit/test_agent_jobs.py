"""Batch jobs at the agent: what it does next, from records and chain alone, and that a crash changes nothing."""

import asyncio
import dataclasses
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.wait import until
from protocol.jobs import Wrap, wraps_to_bytes
from protocol.sealing import WRAP_OVERHEAD
from protocol.siblings import job_of
from worker.agent.enclave_process import EnclaveGone
from worker.agent.job_core import ACCEPT_MARGIN_SECONDS, LOST_SECONDS, POST_MARGIN_SECONDS, Facts, Step, next_step
from worker.agent.job_records import JobRecord, JobRecords, Stage
from worker.agent.job_relay import JobRelay, RelayTrouble, http_origin
from worker.agent.jobs import MAX_ACCEPTS, JobDesk, JobPolicy
from worker.job_messages import JobAccepted, JobBegin, JobDrop, JobFinished, JobInput, JobPiece, JobRefused, JobRun
from wrappers.addresses import Kind, child_address
from wrappers.cells import to_boc
from wrappers.job import REPORT_SECONDS, Acceptance, JobConfig, JobSpec, JobState, Outcome

NODE, KEY, JOB, ESCROW = b"n" * 32, b"k" * 32, b"j" * 32, b"e" * 32
NOW, DEADLINE, GRACE, WINDOW = 1_000_000, 1_007_200, 3600, 86_400
DATA = b"sealed input " * 100
WRAPS = wraps_to_bytes([Wrap(NODE, b"h" * 32, bytes(32 + WRAP_OVERHEAD))])
SPEC = JobSpec(hashlib.sha256(DATA).digest(), len(DATA), hashlib.sha256(WRAPS).digest(), b"t" * 32, 2)
CONFIG = JobConfig(SPEC.hash, b"d" * 32, 500, DEADLINE, GRACE, WINDOW, frozenset({NODE}))
RESULT = b"sealed result"
DIGEST = hashlib.sha256(RESULT).digest()


def record(stage: Stage = Stage.SIGNED, **changes) -> JobRecord:
    made = JobRecord(JOB, ESCROW, 1, to_boc(SPEC.to_cell()), WRAPS, "http://relayer", NOW + 10**6, stage, 7, KEY)
    if stage is Stage.FINISHED:
        made = dataclasses.replace(made, result=DIGEST, amount_nano=90, inner=b"i" * 32, signature=b"s" * 64)
    return dataclasses.replace(made, **changes)


def state(*, accepted: tuple[bytes, bytes] | None = None, posted: bytes | None = None, **config) -> JobState:
    acceptance = None if accepted is None else Acceptance(accepted[0], 3, accepted[1], b"p" * 32)
    outcome = None if posted is None else Outcome(posted, 90, b"i" * 32, NOW)
    config = dataclasses.replace(CONFIG, **config)
    return JobState(b"I" * 32, 7, acceptance, outcome, b"r" * 32, b"c" * 32, ESCROW, 1, config)


def step(record: JobRecord, chain: JobState | None, *, now: int = NOW, key: bytes | None = KEY, **facts) -> Step:
    return next_step(record, Facts(NODE, key, chain, now, facts.pop("max_job_nano", 500), **facts))


OURS = (NODE, KEY)


def test_an_open_job_is_fetched_opened_and_accepted() -> None:
    assert step(record(Stage.FETCHING), state()) is Step.FETCH
    assert step(record(Stage.HELD), state()) is Step.OFFER
    assert step(record(Stage.HELD), state(), key=None) is Step.WAIT
    assert step(record(), state()) is Step.ACCEPT
    assert step(record(key=b"old" + bytes(29)), state()) is Step.OFFER, "a dead key's acceptance is worth nothing"


def test_nothing_is_accepted_that_costs_too_much_comes_too_late_or_is_not_ours() -> None:
    last, held = DEADLINE - ACCEPT_MARGIN_SECONDS, record(Stage.HELD)
    assert step(held, state(), now=last) is Step.OFFER and step(record(), state(), now=last) is Step.ACCEPT
    for refused in (
        step(held, state(), now=last + 1),
        step(held, state(maximum_nano=501)),
        step(held, state(), max_job_nano=0),
        step(held, state(), now=held.keep_until + 1),
        *(
            step(one, chain)
            for one in (held, record())
            for chain in (state(nodes=frozenset({b"x" * 32})), state(spec=bytes(32)), state(accepted=(b"x" * 32, KEY)))
        ),
    ):
        assert refused is Step.FORGET


def test_g3_a_signed_acceptance_is_kept_as_long_as_it_can_land() -> None:
    """Our message may be on its way, and anybody may send it again: a job forgotten before would cost its maximum."""
    last = DEADLINE - ACCEPT_MARGIN_SECONDS
    for waiting in (
        step(record(), state(), now=last + 1),
        step(record(), state(), now=DEADLINE + ACCEPT_MARGIN_SECONDS),
        step(record(), state(maximum_nano=501)),
        step(record(), state(), max_job_nano=0),
        step(record(), state(), takes_new=False),
        step(record(), state(), key=None),
        step(record(keep_until=NOW - 1), state(), now=last + 1),
    ):
        assert waiting is Step.WAIT, "not sent, not forgotten"
    assert step(record(), state(), now=DEADLINE + ACCEPT_MARGIN_SECONDS + 1) is Step.FORGET
    assert step(record(), state(), now=last + 1, key=b"x" * 32) is Step.FORGET, "its key signs no more"


def test_g3_no_relayer_decides_how_long_what_is_owed_is_kept() -> None:
    """`keep_until` is the relayer's word: a client's friend would have the node miss the job, and be slashed."""
    over, mine, posted = {"keep_until": NOW - 1}, state(accepted=OURS), state(accepted=OURS, posted=DIGEST)
    assert step(record(**over), state()) is Step.ACCEPT, "it is signed already"
    assert step(record(**over), mine) is Step.RUN
    assert step(record(**over), mine, running=True) is Step.WAIT
    assert step(record(Stage.FINISHED, **over), mine) is Step.POST
    assert step(record(Stage.FINISHED, **over), posted) is Step.WAIT
    assert step(record(Stage.FINISHED, **over), posted, now=NOW + WINDOW) is Step.COLLECT
    for early in (Stage.FETCHING, Stage.HELD):
        assert step(record(early, **over), state()) is Step.FORGET


def test_what_was_accepted_is_run_and_posted_in_time() -> None:
    end = DEADLINE + GRACE
    mine = state(accepted=OURS)
    assert step(record(), mine) is Step.RUN
    assert step(record(), mine, running=True) is Step.WAIT
    assert step(record(), mine, now=end - POST_MARGIN_SECONDS - 1) is Step.RUN
    assert step(record(), mine, now=end - POST_MARGIN_SECONDS) is Step.LOST
    assert step(record(), mine, key=b"x" * 32) is Step.LOST, "the accepting enclave is gone"
    done = record(Stage.FINISHED)
    assert step(done, mine, now=end, key=None) is Step.POST, "a signed result needs no enclave"
    assert step(done, mine, now=end + 1) is Step.LOST
    assert step(done, mine, now=end + LOST_SECONDS) is Step.LOST
    assert step(done, mine, now=end + LOST_SECONDS + 1) is Step.FORGET
    # Accepted before the operator lowered what he lets a job cost: it is owed all the same.
    assert step(record(), mine, max_job_nano=0) is Step.RUN


def test_a_posted_result_is_delivered_and_collected() -> None:
    posted, done = state(accepted=OURS, posted=DIGEST), record(Stage.FINISHED)
    assert step(done, posted) is Step.DELIVER
    there = dataclasses.replace(done, delivered=True)
    assert step(there, posted) is Step.WAIT
    assert step(there, posted, now=NOW + WINDOW) is Step.COLLECT
    assert step(there, posted, now=NOW + WINDOW, may_collect=False) is Step.FORGET, "not worth a message"
    assert step(done, posted, now=NOW + WINDOW) is Step.COLLECT, "also where no relayer took the result"
    assert step(done, state(accepted=OURS, posted=bytes(32))) is Step.FORGET
    assert step(done, state(accepted=(b"x" * 32, KEY), posted=DIGEST)) is Step.FORGET


def test_a_job_that_is_gone_is_forgotten_and_one_that_is_not_born_is_not() -> None:
    assert step(record(), None) is Step.FORGET
    assert step(record(Stage.HELD, epoch=0), None) is Step.WAIT
    assert step(record(Stage.FETCHING, epoch=0), None) is Step.FETCH
    assert step(record(Stage.HELD, epoch=0), None, now=NOW + 10**6 + 1) is Step.FORGET


# ---- records


def test_g16_records_survive_and_halves_are_dropped(tmp_path: Path) -> None:
    records = JobRecords(tmp_path / "jobs")
    records.put(record(Stage.FETCHING))
    assert not records.add_input(JOB, DATA[:500]) and records.input_size(JOB) == 500
    records = JobRecords(tmp_path / "jobs")
    assert records.add_input(JOB, DATA[500:]) and records.input(JOB) == DATA
    records.put_result(JOB, RESULT)
    kept = records.change(JOB, stage=Stage.FINISHED, result=DIGEST, signature=b"s" * 64)
    (tmp_path / "jobs" / "half").mkdir()
    records = JobRecords(tmp_path / "jobs")
    assert records.all() == (kept,) and records.has_result(kept) and not (tmp_path / "jobs" / "half").exists()
    assert records.change(b"x" * 32, epoch=1) is None
    records.forget(JOB)
    assert JobRecords(tmp_path / "jobs").all() == ()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"job": 5}', b"\xff"])
def test_g16_a_damaged_record_is_never_thrown_away(tmp_path: Path, damage: bytes) -> None:
    """What was signed may be in it: the operator restores the file, or gives the job up himself."""
    records = JobRecords(tmp_path / "jobs")
    records.put(record())
    records.put_result(JOB, RESULT)
    whole = (tmp_path / "jobs" / JOB.hex() / "record.json").read_bytes()
    (tmp_path / "jobs" / JOB.hex() / "record.json").write_bytes(damage)
    (tmp_path / "jobs" / "a file").write_text("of somebody else's")
    assert JobRecords(tmp_path / "jobs").all() == ()
    (tmp_path / "jobs" / JOB.hex() / "record.json").write_bytes(whole)
    records = JobRecords(tmp_path / "jobs")
    assert records.all() == (record(),) and records.result(JOB) == RESULT


def test_another_input_than_the_jobs_is_dropped(tmp_path: Path) -> None:
    records = JobRecords(tmp_path / "jobs")
    records.put(record(Stage.FETCHING))
    assert not records.add_input(JOB, bytes(len(DATA))) and records.input_size(JOB) == 0


# ---- the desk


class Chain:
    """What the desk reads, as a test sets it; and a wallet that notes what is sent."""

    def __init__(self) -> None:
        self.state: JobState | None = state()
        self.now = NOW
        self.sent: list = []
        self.draining = False
        self.stake_seconds = 9 * 86_400
        self.account = NODE
        self.chain = self

    async def head(self):
        return type("Head", (), {"now": self.now})

    async def job(self, job: bytes) -> JobState | None:
        return self.state

    async def node(self):
        answers_until = staticmethod(lambda now: now + self.stake_seconds)
        facts = {"unbond_at": 0, "draining": self.draining, "answers_until": answers_until}
        return type("View", (), {"state": type("Node", (), facts)})

    async def send(self, chain, messages):
        self.sent += messages
        return self

    async def landed(self, chain):
        return None


class Relay:
    origin = "http://relayer"

    def __init__(self) -> None:
        self.data, self.breaks, self.results = DATA, False, []

    async def entries(self):
        from protocol.job_link import Entry

        return (Entry(JOB, ESCROW, 1, to_boc(SPEC.to_cell()), WRAPS, NOW + 10**6),)

    async def input_piece(self, job: bytes, offset: int) -> bytes:
        if self.breaks and offset:
            raise RelayTrouble("broken")
        return self.data[offset : offset + 500]

    async def put_result(self, job: bytes, data: bytes, digest: bytes) -> None:
        self.results.append((data, digest))


class FakeEnclave:
    key = KEY

    def __init__(self) -> None:
        self.desk: JobDesk | None = None
        self.got: list = []
        self.refuses: str | None = None
        self.dies = False

    def post(self, message) -> None:
        self.got.append(message)

    async def send(self, message) -> None:
        self.got.append(message)
        if message == JobRun(JOB, 0):
            self.finish()
        inputs = b"".join(one.data for one in self.got if isinstance(one, JobInput))
        if isinstance(message, JobInput) and self.dies:
            self.desk.enclave_jobs.enclave_gone()
        elif isinstance(message, JobInput) and self.refuses:
            self.desk.enclave_jobs.on_message(JobRefused(JOB, self.refuses, "cause", "cure"))
        elif isinstance(message, JobInput) and inputs == DATA:
            self.desk.enclave_jobs.on_message(JobAccepted(JOB, b"a" * 64))

    def finish(self) -> None:
        self.desk.enclave_jobs.on_message(JobPiece(JOB, RESULT[:5]))
        self.desk.enclave_jobs.on_message(JobPiece(JOB, RESULT[5:]))
        self.desk.enclave_jobs.on_message(JobFinished(JOB, DIGEST, 90, b"i" * 32, b"s" * 64))


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder, self.chain, self.relay, self.enclave = folder, Chain(), Relay(), FakeEnclave()
        self.restart()

    def restart(self) -> None:
        """A new process over the same disk."""
        self.enclave = FakeEnclave()
        policy = JobPolicy(max_job_nano=500, collect_nano=10)
        records = JobRecords(self.folder / "jobs")
        self.desk = JobDesk(records, self.chain, self.chain, [self.relay], policy, lambda: self.enclave)
        self.enclave.desk = self.desk

    async def steps(self, count: int = 1) -> None:
        for _ in range(count):
            await self.desk.step()

    async def stored(self) -> None:
        """Until the disk has what the enclave sent."""

        async def finished() -> bool | None:
            return self.stage == "finished" or None

        await until(finished, what="the result to be stored", timeout_seconds=10, interval_seconds=0.01)

    @property
    def stage(self) -> str | None:
        return self.desk.stages.get(JOB.hex())

    @property
    def sent(self) -> list[bytes]:
        return [message.destination for message in self.chain.sent]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_job_from_the_relayer_to_its_pay(place: Place) -> None:
    await place.steps(3)
    assert place.stage == "signed" and place.sent == [NODE]
    await place.steps()
    assert place.sent == [NODE], "the chain gets time to show it"
    place.chain.state = state(accepted=OURS)
    await place.steps(2)
    runs = [one for one in place.enclave.got if isinstance(one, JobRun)]
    assert place.stage == "running" and len(runs) == 1
    place.enclave.finish()
    await place.stored()
    await place.steps()
    assert place.stage == "finished" and place.sent == [NODE, JOB]
    place.chain.state = state(accepted=OURS, posted=DIGEST)
    await place.steps(2)
    assert place.relay.results == [(RESULT, DIGEST)] and place.sent == [NODE, JOB]
    place.chain.now = NOW + WINDOW
    await place.steps()
    assert place.sent == [NODE, JOB, JOB]
    place.chain.state = None
    await place.steps(2)
    assert place.stage is None


async def test_g16_a_kill_in_between_loses_no_result(place: Place) -> None:
    place.relay.breaks = True
    await place.steps(2)
    assert place.stage == "fetching"
    place.restart()
    place.relay.breaks = False
    await place.steps(2)
    place.chain.state = state(accepted=OURS)
    await place.steps()
    place.enclave.finish()
    await place.stored()
    place.restart()
    place.enclave.key = b"another key".ljust(32)
    await place.steps()
    assert place.stage == "finished" and place.sent[-1] == JOB, "posted by the process after"


async def test_an_agent_that_stops_has_what_runs_ended_and_stored(place: Place) -> None:
    await place.steps(3)
    place.chain.state = state(accepted=OURS)
    await place.steps()
    assert place.stage == "running"
    await place.desk.enclave_jobs.stop()
    assert place.stage == "finished"
    place.restart()
    await place.steps()
    assert place.sent[-1] == JOB


async def test_g18_a_result_of_a_job_that_was_forgotten_waits_for_no_disk(place: Place) -> None:
    await place.steps(3)
    place.chain.state = state(accepted=OURS)
    await place.steps()
    place.chain.state = None
    place.enclave.finish()
    await place.steps()
    assert place.stage is None
    async with asyncio.timeout(2):
        await place.desk.enclave_jobs.storing()
    assert not place.desk.enclave_jobs.running


async def test_g18_a_result_that_cannot_be_kept_holds_up_neither_the_agent_nor_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("not a record")

    await place.steps(3)
    place.chain.state = state(accepted=OURS)
    await place.steps()
    monkeypatch.setattr(JobRecords, "put_result", broken)
    place.enclave.finish()
    async with asyncio.timeout(2):
        await place.desk.enclave_jobs.storing()
    assert not place.desk.enclave_jobs.running


async def test_g18_one_job_or_relayer_in_a_bad_way_holds_up_no_other(place: Place) -> None:
    class Broken(Relay):
        origin = "http://broken"

        async def entries(self):
            raise KeyError("entries")

    records = JobRecords(place.folder / "jobs")
    records.put(record(Stage.FETCHING, job=b"b" * 32, spec=b"no bag of cells", epoch=0))
    policy = JobPolicy(max_job_nano=500, collect_nano=10)
    place.desk = JobDesk(records, place.chain, place.chain, [Broken(), place.relay], policy, lambda: place.enclave)
    place.enclave.desk = place.desk
    await place.steps(2)
    assert place.stage == "signed" and len(records.all()) == 2


async def test_a_draining_node_takes_no_new_jobs_and_ends_what_it_took(place: Place) -> None:
    place.chain.draining = True
    await place.steps(3)
    assert place.stage == "held"
    place.chain.draining = False
    await place.steps(2)
    place.chain.draining, place.chain.state = True, state(accepted=OURS)
    await place.steps()
    assert place.stage == "running"


async def test_a_job_that_outlasts_the_stake_waits_until_the_stake_answers_for_it(place: Place) -> None:
    config = state().config
    left = config.deadline + config.grace + REPORT_SECONDS - NOW
    place.chain.stake_seconds = left - 1
    await place.steps(3)
    assert place.stage == "held"
    place.chain.stake_seconds = left
    await place.steps(2)
    assert place.stage != "held"


async def test_an_enclave_that_dies_while_it_opens_is_asked_again(place: Place) -> None:
    place.enclave.dies = True
    await place.steps(2)
    assert place.stage == "held"
    place.enclave.dies = False
    place.enclave.got.clear()
    await place.steps()
    assert place.stage == "signed" and isinstance(place.enclave.got[0], JobBegin)


async def test_what_the_enclave_refuses_is_forgotten_unless_it_is_only_busy(place: Place) -> None:
    place.enclave.refuses = "node-busy"
    await place.steps(2)
    assert place.stage == "held"
    place.enclave.refuses = "terms-refused"
    await place.steps()
    assert place.stage is None and isinstance(place.enclave.got[-1], JobDrop)
    await place.steps(2)
    assert place.stage is None, "and not fetched again"


async def test_an_acceptance_that_the_chain_does_not_take_is_not_sent_for_ever(place: Place, monkeypatch) -> None:
    monkeypatch.setattr("worker.agent.jobs.AGAIN_SECONDS", 0.0)
    await place.steps(12)
    assert place.sent == [NODE] * MAX_ACCEPTS and place.stage == "signed", "one of them may land yet"
    assert not any(isinstance(one, JobDrop) for one in place.enclave.got)
    place.chain.state = state(accepted=OURS)
    await place.steps()
    assert place.stage == "running"


async def test_g4_what_was_signed_for_another_life_of_the_job_is_not_sent_in_this_one(place: Place) -> None:
    await place.steps(2)
    place.desk.enclave_jobs.drop(JOB)
    place.chain.state = dataclasses.replace(state(), epoch=8)
    place.enclave.got.clear()
    await place.steps()
    begun = next(one for one in place.enclave.got if isinstance(one, JobBegin))
    assert begun.epoch == 8 and place.sent == [], "opened anew, before anything is sent"


async def test_nothing_is_fetched_that_the_chain_does_not_show_as_open_for_us(place: Place) -> None:
    for no in (None, state(nodes=frozenset({b"x" * 32})), state(accepted=OURS)):
        place.chain.state = no
        await place.steps()
        assert place.stage is None
    place.chain.state, place.relay.data = state(), bytes(len(DATA))
    await place.steps(2)
    assert place.stage == "fetching", "another input than the job's is never opened"


def test_the_relayers_jobs_are_where_its_link_is() -> None:
    assert http_origin("ws://host:1/") == "http://host:1" and http_origin("wss://host") == "https://host"
    assert issubclass(EnclaveGone, Exception)


async def test_g18_an_answer_nested_beyond_reading_is_a_relayers_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    relay = JobRelay("http://relayer", network=b"N" * 32, node=NODE, signer=Ed25519PrivateKey.generate())

    async def ask(*_: object, **__: object) -> bytes:
        return b"[" * 2000 + b"]" * 2000

    monkeypatch.setattr(relay, "_ask", ask)
    with pytest.raises(RelayTrouble):
        await relay.put_result(JOB, b"result", DIGEST)
    with pytest.raises(RelayTrouble):
        await relay.entries()


def test_g10_a_job_is_genuine_only_at_the_address_of_its_owner_and_index() -> None:
    registry = b"r" * 32
    genuine = child_address(registry, Kind.JOB, ESCROW, 1)
    for made in (state(), state(accepted=OURS), state(accepted=OURS, posted=DIGEST)):
        assert job_of(made.to_cell(), genuine, registry) == made
        for account, of in ((b"j" * 32, registry), (genuine, b"x" * 32)):
            assert job_of(made.to_cell(), account, of) is None
    assert job_of(SPEC.to_cell(), genuine, registry) is None
    assert job_of(dataclasses.replace(state(), index=2).to_cell(), genuine, registry) is None
