"""What only a person may say, on the page: offered where a refusal says that it would help, and said with a reason."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from oma.domain.errors import Code, Refusal
from oma.domain.holders import DeviceHolder, ProcessId
from oma.domain.states import JobState
from oma.domain.words import SILENT, Words
from oma.domain.world import CloudSnapshot
from oma.gui.evidence import evidence_lines
from oma.gui.offers import form_fields, offers_for, read_form
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui import samples
from tests.unit.gui.samples import GIB, ago
from tests.unit.gui.stubs import StubDaemon

HTML = {"Accept": "text/html"}
URL = "/vms/ctx-pgtest1/cleanup"
UNTRACKED = "5eaf0000-0000-4000-8000-000000000001"
INJECTION = DeviceHolder(
    "process",
    "virt-v2v-in-place",
    process=ProcessId(4711, 99),
    command="virt-v2v-in-place /dev/vdb",
    role="injection",
    tree=ProcessId(4700, 98),
    endable=True,
)


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
async def browser(daemon: StubDaemon) -> AsyncIterator[TestClient[Any, Any]]:
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    async with TestClient(TestServer(app)) as client:
        yield client


async def read(response: ClientResponse) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", await response.text())).split())


def hidden_fields(page: str, button: str) -> dict[str, str]:
    """The hidden fields of the form with this button."""
    form = next(one for one in re.findall(r"<form.*?</form>", page, re.DOTALL) if button in one)
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form)
    return {unescape(name): unescape(value) for name, value in found}


def vm_at_home_with_a_hung_injection(daemon: StubDaemon) -> None:
    """Its disks never left the OMA; the injection of its dead failover holds the first."""
    records = samples.vm_records("pgtest1")
    home = samples.vm_records("pgtest1", broken=False)
    daemon.estate.add(replace(records, mappings=home.mappings))
    daemon.world.held = {samples.volume_id(1): (INJECTION,)}


def vm_with_a_lost_tracking(daemon: StubDaemon) -> None:
    records = samples.vm_records("pgtest1", disks=1)
    volumes = tuple(replace(one, snapshot_id="", snapshot_status="none") for one in records.volumes)
    daemon.estate.add(replace(records, volumes=volumes))
    daemon.world.untracked = [
        CloudSnapshot(UNTRACKED, samples.volume_id(1), "multi-test-failover-1", "BackedUp", ago(hours=2.5), 40 * GIB)
    ]


async def test_a_plan_offers_no_word(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    words = await read(await browser.get(URL, headers=HTML))
    assert "Run exactly this plan" in words
    assert "What only a person may decide" not in words
    assert "about 20 s; 10 s to 2 min" in words
    assert "Replica afterwards replica ready" in words


async def test_a_hung_injection_is_ended_only_with_a_reason_and_by_the_plan_that_was_shown(daemon, browser):
    vm_at_home_with_a_hung_injection(daemon)
    refused = await browser.get(URL, headers=HTML)
    words = await read(refused)
    assert "process 4711 (virt-v2v-in-place /dev/vdb)" in words
    assert "What only a person may decide End the driver injection" in words
    page = await refused.text()
    fields = hidden_fields(page, "Show the plan that ends the injection")
    assert fields == {"end_holders": "yes"}
    assert 'name="reason" required' in page
    blank = await browser.post(URL, data={**fields, "reason": "  ", "look": "yes"}, headers=HTML)
    assert blank.status == 422
    assert "needs a reason" in await read(blank)

    shown = await browser.post(URL, data={**fields, "reason": "hung since two", "look": "yes"}, headers=HTML)
    words = await read(shown)
    assert "You insist: end the driver injection (“hung since two”)" in words
    assert "End the driver injection" in words
    assert daemon.estate.queued == []
    confirmed = hidden_fields(await shown.text(), "Run exactly this plan")
    answer = await browser.post(URL, data=confirmed, headers=HTML, allow_redirects=False)
    assert answer.status == 303
    [queued] = daemon.estate.queued
    assert queued.request["words"]["end_holders"] is True
    assert queued.request["words"]["reason"] == "hung since two"
    assert queued.plan.digest == confirmed["expect_plan"]


async def test_an_untracked_snapshot_is_chosen_by_a_radio_button(daemon, browser):
    vm_with_a_lost_tracking(daemon)
    page = await (await browser.get(URL, headers=HTML)).text()
    [field] = re.findall(r'<input type="radio" name="([^"]+)" value="' + UNTRACKED + '" required>', page)
    assert field == f"snapshot:{samples.volume_id(1)}"
    form = {field: UNTRACKED, "reason": "the night's own", "look": "yes"}
    shown = await browser.post(URL, data=form, headers=HTML)
    assert f"Revert vol-1 to snapshot {UNTRACKED}" in await read(shown)
    confirmed = hidden_fields(await shown.text(), "Run exactly this plan")
    await browser.post(URL, data=confirmed, headers=HTML, allow_redirects=False)
    assert daemon.estate.queued[0].request["words"]["snapshots"] == {samples.volume_id(1): UNTRACKED}


async def test_a_candidate_that_would_not_pass_is_shown_but_cannot_be_chosen(daemon, browser):
    vm_with_a_lost_tracking(daemon)
    daemon.world.untracked = [replace(daemon.world.untracked[0], size_bytes=1)]
    page = await (await browser.get(URL, headers=HTML)).text()
    assert re.search(r'<input type="radio"[^>]+ disabled>', page)
    assert "a revert would resize it" in page


async def test_force_is_offered_only_after_a_failed_run(daemon, browser):
    daemon.estate.add(replace(samples.vm_records("pgtest1"), last_run_failed=True))
    page = await browser.get(URL, headers=HTML)
    words = await read(page)
    assert "Run exactly this plan" in words
    assert "Go on with force" in words
    assert hidden_fields(await page.text(), "Show the plan with force") == {"force": "yes"}


async def test_a_stale_plan_shows_what_changed_and_offers_the_new_one_under_the_same_words(daemon, browser):
    vm_at_home_with_a_hung_injection(daemon)
    words = {"end_holders": "yes", "reason": "hung", "look": "yes"}
    shown = await browser.post(URL, data=words, headers=HTML)
    confirmed = hidden_fields(await shown.text(), "Run exactly this plan")
    records = daemon.estate.vms["ctx-pgtest1"]
    daemon.estate.add(replace(records, context=replace(records.context, current_status="cleanup_required")))
    stale = await browser.post(URL, data=confirmed, headers=HTML)
    told = await read(stale)
    assert "Nothing was started." in told
    assert "The VM's former status was failed_over_test and is cleanup_required." in told
    assert daemon.estate.queued == []
    fresh = hidden_fields(await stale.text(), "Run exactly this plan")
    assert fresh["expect_plan"] != confirmed["expect_plan"]
    assert (fresh["end_holders"], fresh["reason"]) == ("yes", "hung")


async def test_words_that_do_not_fit_are_told_as_by_the_api(daemon, browser):
    vm_with_a_lost_tracking(daemon)
    for form, sentence in (
        ({"force": "yes", "end_test": "yes", "reason": "x"}, "can't be said together"),
        ({"destination_vm_id": "nonsense", "force": "yes", "reason": "x"}, "must be an id of CloudStack"),
        ({"reason": "x" * 2001, "force": "yes"}, "2001 characters"),
    ):
        answer = await browser.post(URL, data={**form, "look": "yes"}, headers=HTML)
        assert answer.status == 422
        assert sentence in await read(answer)
    assert daemon.estate.queued == []


async def test_a_parked_run_without_an_issue_goes_on_by_a_click(daemon, browser):
    daemon.estate.put_job(samples.parked_job())
    page = await browser.get("/jobs/job-1", headers=HTML)
    assert "Go on with this run" in await read(page)
    answer = await browser.post("/jobs/job-1/resume", data={"look": "yes"}, headers=HTML, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/jobs/job-1")
    assert daemon.estate.job_rows["job-1"].state is JobState.QUEUED


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"end_test": "yes", "reason": "over"}, "end_test"),
        ({"force": "yes"}, "reason"),
        ({"force": "no", "reason": "no"}, "force"),
        ({"force": "yes", "reason": "why", "destination_vm_id": UNTRACKED}, "destination_vm_id"),
        ({"force": "yes", "reason": "why", f"snapshot:{UNTRACKED}": UNTRACKED}, "snapshots"),
    ],
)
async def test_a_form_that_resumes_says_nothing_that_would_make_another_plan(daemon, browser, form, field):
    daemon.estate.put_job(samples.parked_job())
    answer = await browser.post("/jobs/job-1/resume", data=form, allow_redirects=False)
    assert answer.status == 422
    assert field in await answer.text()
    assert daemon.estate.resumed == []


async def test_a_parked_run_with_an_issue_that_force_never_passes_offers_nothing(daemon, browser):
    daemon.estate.put_job(samples.parked_job())
    daemon.estate.issues.append(samples.issue())
    assert "What only a person may decide" not in await read(await browser.get("/jobs/job-1", headers=HTML))
    stuck = replace(samples.issue(), kind="destroy_vm", title="The test VM won't go.")
    daemon.estate.issues[:] = [stuck]
    page = await browser.get("/jobs/job-1", headers=HTML)
    assert "Go on with force" in await read(page)


def test_a_live_vm_is_offered_only_where_it_was_never_started():
    known = {"destination_vm_id": "vm-1"}
    for evidence, offered in (({**known, "started": None}, 1), ({**known, "started": "VM.START"}, 0), (known, 0)):
        offers = offers_for([Refusal(Code.LIVE_FAILOVER, "No.", "Look.", evidence)], SILENT, {})
        assert [offer.typed_vm for offer in offers] == [True] * offered


def test_words_said_before_are_kept_unless_they_exclude_each_other():
    said = Words(end_holders=True, snapshots=(("v", "s"),), reason="first")
    refusals = [Refusal(Code.TEST_FAILOVER_ACTIVE, "No.", "Look.")]
    [offer] = offers_for(refusals, said, {})
    assert offer.kept == (("snapshot:v", "s"),)
    assert offer.reason == "first"


def test_a_form_says_again_what_its_fields_say():
    volume, snapshot = samples.volume_id(1), UNTRACKED
    words = Words(force=True, destination_vm_id=volume, snapshots=((volume, snapshot),), reason="why")
    assert read_form({**dict(form_fields(words)), "reason": "why"}) == words


def test_evidence_is_told_in_lines_without_what_the_sentence_says():
    evidence = {
        "volume_name": "vol-1",
        "size_bytes": 40 * GIB,
        "nothing": None,
        "holders": [INJECTION.as_json()],
        "tracked": [{"snapshot_id": "s-1", "tracked_in": ["ossea_volumes"], "cloudstack": "not listed"}],
        "candidates": [{"snapshot_id": "s-2", "name": "multi", "would_pass": False, "problems": ["Too old."]}],
        "answer": {"asked": "CloudStack", "reason": "no answer"},
    }
    assert evidence_lines(evidence, "vol-1 has no snapshot.") == (
        ("size", "40 GiB"),
        ("holder", "process 4711 (virt-v2v-in-place /dev/vdb); may be ended"),
        ("tracked", "s-1 in ossea_volumes; CloudStack: not listed"),
        ("candidate", "s-2 (multi); would not pass: Too old."),
        ("answer", "asked CloudStack, reason no answer"),
    )
