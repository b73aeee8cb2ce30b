"""What an operator does on the page, for any stack: from the estate over the confirmation to the end of the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page, expect

STEP_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Journey:
    """What was seen. `badge` is the run's last state in words, `answer` the sentence about the replica or the fault."""

    job_id: str
    badge: str
    answer: str


async def clean_up_by_hand(
    page: Page, base_url: str, vm_name: str, *, end_timeout_s: float = 120.0, screenshots: Path | None = None
) -> Journey:
    """Cleans `vm_name` up through the page alone; fails where any step is not offered. Point it at a real stack."""
    await open_confirmation(page, base_url, vm_name, screenshots)
    await take(page, screenshots, "confirm")
    await page.get_by_role("button", name="Run exactly this plan").click()
    await page.wait_for_url(re.compile(r"/jobs/[^/]+$"), timeout=STEP_TIMEOUT_MS)
    await take(page, screenshots, "job-begun")
    return await watch_to_the_end(page, end_timeout_s=end_timeout_s, screenshots=screenshots)


async def open_confirmation(page: Page, base_url: str, vm_name: str, screenshots: Path | None = None) -> None:
    await page.goto(base_url)
    await page.get_by_label("Name or vCenter").fill(vm_name)
    await page.get_by_role("button", name="Filter").click()
    await take(page, screenshots, "estate")
    card = page.locator("li.vm").filter(has=page.get_by_role("heading", name=vm_name, exact=True))
    await card.get_by_role("link", name="Cleanup Failed Job").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Clean up {vm_name}", timeout=STEP_TIMEOUT_MS)


async def watch_to_the_end(page: Page, *, end_timeout_s: float, screenshots: Path | None = None) -> Journey:
    """Waits until the page itself says that the run has ended; it gets there without being reloaded."""
    await expect(page.locator("#live")).to_have_attribute("data-ended", "true", timeout=end_timeout_s * 1000)
    await take(page, screenshots, "job-ended")
    return Journey(
        job_id=page.url.rpartition("/")[2],
        badge=await page.locator(".now .state .badge").inner_text(),
        answer=await page.locator(".now .answer").first.inner_text(),
    )


async def take(page: Page, folder: Path | None, name: str) -> None:
    if folder is not None:
        width = (page.viewport_size or {"width": 0})["width"]
        await page.screenshot(path=folder / f"{name}-{width}.png", full_page=True)
