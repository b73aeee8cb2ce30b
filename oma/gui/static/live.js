// Keeps the part of a page that is marked `#live` current. The server renders it; an event only says "look again".
// Without this module the page reloads itself while something runs.

const GAP_MS = 400;
const TICK_MS = 2000;

const live = document.getElementById("live");
const lost = document.getElementById("lost");
let source = null;
let looking = false;
let again = false;

function hasEnded() {
  return live.dataset.ended === "true";
}

function openDetails() {
  return new Set([...live.querySelectorAll("details[open]")].map((one) => one.id));
}

function replaceWith(fresh) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const opened = openDetails();
  live.replaceChildren(...fresh.childNodes);
  live.dataset.ended = fresh.dataset.ended ?? "";
  for (const one of live.querySelectorAll("details")) {
    if (one.id && opened.has(one.id)) one.open = true;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function look() {
  if (looking) {
    again = true;
    return;
  }
  looking = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (fresh) {
      replaceWith(fresh);
      document.title = page.title;
    }
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
  if (hasEnded()) {
    source?.close();
    return;
  }
  setTimeout(() => {
    looking = false;
    if (again) {
      again = false;
      look();
    }
  }, GAP_MS);
}

function listen() {
  source = new EventSource(live.dataset.events);
  for (const type of live.dataset.types.split(" ")) source.addEventListener(type, look);
  source.addEventListener("open", look);
  source.addEventListener("error", () => {
    lost.hidden = false;
    if (source.readyState === EventSource.CLOSED) setTimeout(followWhileSeen, TICK_MS);
  });
}

// A hidden tab holds no stream open: browsers allow only a few per site.
function followWhileSeen() {
  if (document.hidden) {
    source?.close();
  } else if (!hasEnded()) {
    listen();
  }
}

if (live && !hasEnded()) {
  document.addEventListener("visibilitychange", followWhileSeen);
  followWhileSeen();
  if (live.dataset.ticks === "true") {
    setInterval(() => { if (!document.hidden && !hasEnded()) look(); }, TICK_MS);
  }
}
