from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from oma.domain.actions import ActionKind
from oma.domain.holders import DeviceHolder, ProcessId
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.domain.world import CloudSnapshot
from tests.browser.chromium import CHROMIUM, open_browser, open_page
from tests.browser.journey import clean_up_by_hand, open_confirmation, take, watch_to_the_end
from tests.browser.stub_stack import serve
from tests.parts import require_part
from tests.unit.gui import samples
from tests.unit.gui.runs import Run
from tests.unit.gui.stubs import StubDaemon

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.exe"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    require_part("chromium", CHROMIUM.exists())
    async with open_browser() as opened:
        yield opened


@pytest.fixture
def daemon() -> StubDaemon:
    daemon = StubDaemon()
    daemon.estate.add(
        samples.vm_records("pgtest1"),
        samples.vm_records("PhilB Test machine", first=10, disks=4, vcenter="vcenter-2.example"),
        samples.vm_records("db/prod #7", first=20, broken=False),
        samples.vm_records("сервер-1", first=30, status="cleanup_required", open_issue_ids=("issue-1",)),
        samples.vm_records("a-vm-with-a-very-long-name-that-nobody-would-type-twice-in-one-day.example.org", first=40),
        samples.vm_records("running", first=50),
    )
    daemon.estate.put_job(samples.job("job-50", "running", phase=Phase.REATTACH))
    return daemon


@pytest.fixture
async def url(daemon: StubDaemon) -> AsyncIterator[str]:
    async with serve(daemon) as address:
        yield address


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """A folder of the test's own, or the one that somebody wants to look at."""
    folder = Path(os.environ.get("OMA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def confirm(page: Page, daemon: StubDaemon) -> Run:
    await page.get_by_role("button", name="Run exactly this plan").click()
    await page.wait_for_url(re.compile("/jobs/"))
    return Run(daemon, daemon.estate.job_rows[page.url.rpartition("/")[2]])


async def test_a_run_is_confirmed_and_followed_live_to_its_good_end(browser, daemon, url, screenshots):
    async with open_page(browser) as (page, complaints):
        await open_confirmation(page, url, "pgtest1", screenshots)
        await take(page, screenshots, "confirm")
        run = await confirm(page, daemon)
        await expect(page.locator(".now .badge").first).to_have_text("queued")
        run.begin(Phase.ANALYZE)
        run.end_phase()
        run.begin(Phase.SNAPSHOTS)
        run.act(1, ActionKind.REVERT_SNAPSHOT, ActionState.EXECUTED, "Reverted vol-1 to its snapshot.")
        run.act(2, ActionKind.REVERT_SNAPSHOT, ActionState.STARTED, "Reverting vol-2 to its snapshot.", volume=2)
        await expect(page.locator("#sentence")).to_have_text("Reverting vol-2 to its snapshot.")
        await expect(page.locator('li[aria-current="step"] h3')).to_contain_text("Revert and delete snapshots")
        await expect(page.locator(".log li").last).to_contain_text("Reverting vol-2")
        await take(page, screenshots, "job-running")
        run.complete()
        journey = await watch_to_the_end(page, end_timeout_s=20, screenshots=screenshots)
        assert journey.badge == "completed"
        assert journey.answer == "replica ready Failed execution cleanup completed for pgtest1"
        assert complaints == []


async def test_the_whole_journey_as_the_lead_runs_it(browser, daemon, url):
    async with open_page(browser) as (page, complaints):
        page.on("framenavigated", lambda frame: complete_when_shown(daemon, frame.url))
        journey = await clean_up_by_hand(page, url, "PhilB Test machine", end_timeout_s=20)
        assert journey.badge == "completed"
        assert daemon.estate.job_rows[journey.job_id].vm_name == "PhilB Test machine"
        assert complaints == []


def complete_when_shown(daemon: StubDaemon, shown_url: str) -> None:
    job = daemon.estate.job_rows.get(shown_url.rpartition("/")[2])
    if job is not None and job.state is JobState.QUEUED:
        Run(daemon, job).complete()


async def test_a_parked_run_tells_what_to_do(browser, daemon, url, screenshots):
    async with open_page(browser) as (page, _):
        await open_confirmation(page, url, "pgtest1")
        run = await confirm(page, daemon)
        run.begin(Phase.SNAPSHOTS)
        run.park()
        journey = await watch_to_the_end(page, end_timeout_s=20)
        await take(page, screenshots, "job-parked")
        assert journey.badge == "parked: needs a person"
        assert journey.answer == "replica unknown The revert of vol-1 failed."
        await expect(page.locator(".issue .guidance li").first).to_contain_text("cs queryAsyncJobResult")


async def test_the_estate_changes_by_itself_when_a_run_begins_and_ends(browser, daemon, url):
    async with open_page(browser) as (page, complaints):
        await page.goto(url)
        card = page.locator("li.vm").filter(has=page.get_by_role("heading", name="pgtest1", exact=True))
        await expect(card.get_by_role("link", name="Cleanup Failed Job")).to_be_visible()
        job = samples.job("job-1", "pgtest1", JobState.QUEUED)
        daemon.estate.put_job(job)
        run = Run(daemon, job)
        run.begin(Phase.SNAPSHOTS)
        await expect(card).to_contain_text("phase 3 of 5")
        await expect(card.get_by_role("link", name="Cleanup Failed Job")).to_have_count(0)
        daemon.estate.add(samples.vm_records("pgtest1", broken=False))
        run.complete()
        await expect(card).to_contain_text("ready for failover")
        assert complaints == []


async def test_it_works_without_javascript(browser, daemon, url):
    async with open_page(browser, java_script_enabled=False) as (page, _):
        await open_confirmation(page, url, "pgtest1")
        run = await confirm(page, daemon)
        run.complete()
        await expect(page.locator(".now .badge").first).to_have_text("completed", timeout=15_000)


async def test_the_keyboard_alone_reaches_and_confirms_the_plan(browser, daemon, url):
    async with open_page(browser) as (page, _):
        await page.goto(f"{url}/?q=pgtest1")
        await page.keyboard.press("Tab")
        await expect(page.locator(":focus")).to_have_text("Skip to the content")
        await page.keyboard.press("Enter")
        link = page.get_by_role("link", name="Cleanup Failed Job")
        await press_until_focused(page, "Cleanup Failed Job")
        assert await link.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile("/cleanup$"))
        await press_until_focused(page, "Run exactly this plan")
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile("/jobs/"))
        assert len(daemon.estate.queued) == 1


async def press_until_focused(page: Page, words: str, name: str | None = None) -> None:
    """`name`: that of a field; else the words that stand on what is focused."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if name is not None and await focused.get_attribute("name") == name:
            return
        if name is None and words in (await focused.text_content() or ""):
            return
    raise AssertionError(f"the keyboard never reached {words!r}")


async def test_a_person_ends_a_hung_injection_by_keyboard_and_confirms_the_plan(browser, daemon, url, screenshots):
    hold(daemon)
    async with open_page(browser) as (page, complaints):
        await page.goto(f"{url}/vms/ctx-held/cleanup")
        await take(page, screenshots, "offer")
        await press_until_focused(page, "", name="reason")
        assert await page.evaluate("document.activeElement.labels[0].innerText") == "Reason, kept in the audit for ever"
        await page.keyboard.press("Enter")
        await expect(page.locator("h2#h-offers")).to_be_visible()
        await page.keyboard.type("hung since two, nobody waits for it")
        await page.keyboard.press("Enter")
        await expect(page.locator(".notice.busy")).to_contain_text("end the driver injection")
        await take(page, screenshots, "insisted")
        await press_until_focused(page, "Run exactly this plan")
        await page.keyboard.press("Enter")
        await page.wait_for_url(re.compile("/jobs/"))
        [queued] = daemon.estate.queued
        assert queued.request["words"]["reason"] == "hung since two, nobody waits for it"
        assert complaints == []


async def test_a_plan_gone_stale_between_dialog_and_click_shows_the_difference(browser, daemon, url, screenshots):
    async with open_page(browser) as (page, complaints):
        await open_confirmation(page, url, "pgtest1")
        daemon.estate.add(samples.vm_records("pgtest1", status="cleanup_required"))
        await page.get_by_role("button", name="Run exactly this plan").click()
        await expect(page.get_by_role("alert")).to_contain_text("former status was failed_over_test and is cleanup_req")
        await take(page, screenshots, "stale")
        assert daemon.estate.queued == []
        await confirm(page, daemon)
        assert daemon.estate.queued[0].plan.former_status == "cleanup_required"
        assert complaints == []


def hold(daemon: StubDaemon) -> None:
    """The VM `held`: its disks are at home, and the injection of its dead failover hangs on the first."""
    records = samples.vm_records("held", first=60, disks=1)
    home = samples.vm_records("held", first=60, disks=1, broken=False)
    daemon.estate.add(replace(records, mappings=home.mappings))
    injection = DeviceHolder(
        "process",
        "virt-v2v-in-place",
        process=ProcessId(4711, 99),
        command="virt-v2v-in-place /dev/vdb",
        role="injection",
        tree=ProcessId(4700, 98),
        endable=True,
    )
    daemon.world.held = {samples.volume_id(60): (injection,)}


def lose_tracking(daemon: StubDaemon) -> None:
    """The VM `lost`: nobody tracked its snapshots; CloudStack lists two that may be meant."""
    records = samples.vm_records("lost", first=70, disks=1)
    volumes = tuple(replace(one, snapshot_id="", snapshot_status="none") for one in records.volumes)
    daemon.estate.add(replace(records, volumes=volumes))
    volume_id, made = samples.volume_id(70), samples.ago(hours=2.5)
    good = CloudSnapshot(
        samples.snapshot_id(70), volume_id, "multi-test-failover-1", "BackedUp", made, 40 * samples.GIB
    )
    daemon.world.untracked = [good, replace(good, id=samples.snapshot_id(71), state="Creating")]


async def test_live_updates_leave_the_focus_where_it_is(browser, daemon, url):
    async with open_page(browser) as (page, _):
        await page.goto(f"{url}/jobs/job-50")
        await page.locator("#vm").focus()
        run = Run(daemon, daemon.estate.job_rows["job-50"])
        run.act(1, ActionKind.ATTACH_VOLUME, ActionState.STARTED, "Attaching vol-50.")
        await expect(page.locator("#sentence")).to_have_text("Attaching vol-50.")
        await expect(page.locator("#vm")).to_be_focused()


async def test_a_lost_daemon_is_said_and_found_again(browser, daemon, url):
    async with open_page(browser) as (page, _):
        await page.goto(f"{url}/jobs/job-50")
        await expect(page.locator("#lost")).to_be_hidden()
        await page.context.set_offline(True)
        await expect(page.locator("#lost")).to_be_visible(timeout=15_000)
        await page.context.set_offline(False)
        await expect(page.locator("#lost")).to_be_hidden(timeout=15_000)


async def test_hostile_names_run_nothing(browser, daemon, url, screenshots):
    daemon.estate.vms.clear()
    daemon.estate.add(samples.vm_records(HOSTILE, context_id="hostile"))
    async with open_page(browser) as (page, complaints):
        page.on("dialog", lambda dialog: complaints.append(f"a dialog opened: {dialog.message}"))
        await page.goto(url)
        await expect(page.locator("h2 bdi")).to_have_text(HOSTILE)
        await page.get_by_role("link", name="Cleanup Failed Job").click()
        await expect(page.locator("h1 bdi")).to_have_text(HOSTILE)
        await confirm(page, daemon)
        await expect(page.locator("h1 bdi")).to_have_text(HOSTILE)
        assert await page.locator("img[src=x]").count() == 0
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_every_page_fits_in_both_schemes(browser, daemon, url, screenshots, *, scheme, width):
    daemon.estate.put_job(samples.parked_job("job-9", "pgtest9"))
    daemon.estate.issues.append(samples.issue("job-9", "pgtest9"))
    daemon.estate.steps["job-9"] = list(samples.steps(Phase.SNAPSHOTS, StepStatus.FAILED))
    daemon.estate.actions["job-50"] = list(samples.actions_of_run())
    daemon.estate.steps["job-50"] = list(samples.steps(Phase.REATTACH))
    daemon.estate.log["job-50"] = [samples.log_line(n, f"Line {n} of the run, with some words.") for n in range(1, 12)]
    daemon.world.missing = {samples.volume_id(10)}
    daemon.world.foreign = {samples.volume_id(11)}
    done = samples.completed_job("job-8", "pgtest8")
    daemon.estate.put_job(replace(done, plan=samples.plan(powered_off=True)))
    daemon.estate.steps["job-8"] = list(samples.steps(Phase.RESET, StepStatus.COMPLETED))
    hold(daemon)
    lose_tracking(daemon)
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    async with open_page(browser, **options) as (page, complaints):
        for name, path in (
            ("estate", "/"),
            ("confirm", "/vms/ctx-pgtest1/cleanup"),
            ("refused", "/vms/ctx-PhilB Test machine/cleanup"),
            ("held", "/vms/ctx-held/cleanup"),
            ("lost", "/vms/ctx-lost/cleanup"),
            ("job-running", "/jobs/job-50"),
            ("job-parked", "/jobs/job-9"),
            ("job-done", "/jobs/job-8"),
            ("not-found", "/jobs/nowhere"),
        ):
            await page.goto(url + path)
            too_wide = await page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert too_wide == 0, f"{name} is {too_wide} px wider than {width}"
            await take(page, screenshots, f"{scheme}-{name}")
        assert [one for one in complaints if "404" not in one] == []
