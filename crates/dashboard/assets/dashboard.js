"use strict";
// Keeps a page up to date: when the grid has another version than the page shows, the page is fetched again and what
// differs is patched in, so that scroll position, selection and focus stay.
(() => {
  const TICKS = document.currentScript.dataset.ticks;
  /** What the page was asked for, also what its address does not say any more. */
  const ASKED_FOR = location.href;
  /** Fields of an address that tell of what has just been done. A reload or a bookmark must not tell it again. */
  const TOLD_ONCE = ["submitted", "done", "changed", "matched", "uploaded"];
  /** Ages such as "3 min ago" are renewed this often where nothing else changes, and so is a page that is slow to make. */
  const RENEW_MS = 15000;
  /** A page that has not come by then is asked for again: its coordinator may be gone without a word. */
  const ANSWER_MS = 30000;
  /** No row and no block comes or goes while the pointer moves, and so long after. */
  const STILL_MS = 1500;

  const main = document.getElementById("main");
  const status = document.getElementById("live");
  const pause = document.getElementById("pause");

  let port = null;
  let grid = { is: "opening", version: "" };
  let isPaused = sessionStorage.getItem("paused") === "yes";
  let asked = null;
  let askedAt = 0;
  let isSignedOut = false;
  let isGone = false;
  let fetchedAt = Date.now();
  let movedAt = 0;
  let postponed = 0;
  let pointed = null;

  // --- Patching

  const selected = (node) => {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(node, true);
  };

  /** The row or the control under the pointer, which must stay where it is. A pointer that rests since the page came points
   * at nothing. */
  function findPointed() {
    if (movedAt === 0) return null;
    const under = [...main.querySelectorAll(":hover")];
    return under.findLast((node) => node.matches("a, button, input, select, textarea, summary, label, [data-rows] > *")) ?? null;
  }

  const isMoving = () => Date.now() - movedAt <= STILL_MS;

  const stands = (node) => node.contains(pointed) || (node.compareDocumentPosition(pointed) & Node.DOCUMENT_POSITION_FOLLOWING) !== 0;

  /** Whether something may come or go at a place: before a node, or at the end of its parent. */
  function mayMove(parent, before) {
    if (isMoving()) return false;
    if (pointed === null) return true;
    return before === null ? parent.contains(pointed) || !stands(parent) : !stands(before);
  }

  const mayMoveRows = (rows) =>
    !rows.matches(":focus-within") && !rows.contains(pointed) && mayMove(rows, rows.firstChild);

  function patchAttributes(old, fresh) {
    for (const { name } of [...old.attributes]) {
      const isUsers = name === "open" && old.nodeName === "DETAILS";
      if (!fresh.hasAttribute(name) && !isUsers) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function patchRows(old, fresh) {
    const rows = new Map([...old.children].map((row) => [row.id, row]));
    for (const row of [...fresh.children]) {
      const known = rows.get(row.id);
      if (known) {
        patch(known, row);
        rows.delete(row.id);
      } else {
        postponed += 1;
      }
    }
    postponed += rows.size;
  }

  function patchChildren(old, fresh) {
    const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    const kept = new Set([...fresh.children].map((child) => child.id));
    const isGone = (node) => node.id && !kept.has(node.id);
    /** Removes a node unless it must wait; returns the next one. */
    const drop = (node) => {
      const next = node.nextSibling;
      if (node.id && !mayMove(old, node)) postponed += 1;
      else node.remove();
      return next;
    };
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at !== null && isGone(at)) at = drop(at);
      const same = next.id ? known.get(next.id) : at;
      if (next.id ? !same : at === null || at.id || at.nodeName !== next.nodeName) {
        if (next.id && !mayMove(old, at)) postponed += 1;
        else old.insertBefore(next, at);
        continue;
      }
      if (same === at) at = at.nextSibling;
      else if (mayMove(old, at)) old.insertBefore(same, at);
      else postponed += 1;
      patch(same, next);
    }
    // A block whose place must wait stands behind it.
    while (at !== null) at = at.id && kept.has(at.id) ? at.nextSibling : drop(at);
  }

  function patch(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
    } else if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data && !selected(old)) old.data = fresh.data;
    } else if (!("keep" in old.dataset) && !old.isEqualNode(fresh)) {
      patchAttributes(old, fresh);
      if ("rows" in old.dataset && !mayMoveRows(old)) patchRows(old, fresh);
      else patchChildren(old, fresh);
    }
  }

  // --- Following the grid

  function show() {
    if (status === null) return;
    const words = {
      live: postponed > 0 ? `live · ${postponed} ${postponed === 1 ? "change waits" : "changes wait"} for the pointer` : "live",
      opening: "connecting",
      lost: "connection lost, trying again",
      out: "signed out: reload to sign in",
      gone: "what this page shows is not there any more",
      paused: "paused",
    };
    const refused = isSignedOut ? "out" : isGone ? "gone" : "live";
    const known = grid.is === "live" ? refused : grid.is;
    const is = isPaused && known === "live" ? "paused" : known;
    if (status.dataset.is !== is) status.dataset.is = is;
    if (status.textContent !== words[is]) status.textContent = words[is];
    pause.hidden = false;
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Resume" : "Pause";
  }

  async function refresh() {
    if (asked !== null) {
      if (Date.now() - askedAt > ANSWER_MS) asked.abort();
      return;
    }
    asked = new AbortController();
    askedAt = Date.now();
    try {
      const response = await fetch(ASKED_FOR, { cache: "no-store", headers: { accept: "text/html" }, signal: asked.signal });
      isSignedOut = response.redirected && new URL(response.url).pathname === "/sign-in";
      isGone = response.status === 404;
      if (isGone) fetchedAt = Date.now();
      if (isSignedOut || isGone) return;
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById("main");
      if (fresh === null || !("version" in fresh.dataset)) return;
      postponed = 0;
      pointed = findPointed();
      patch(main, fresh);
      document.title = page.title;
      fetchedAt = Date.now();
      document.dispatchEvent(new CustomEvent("divvy:patched"));
    } catch {
      // The stream tells when the coordinator is there again.
    } finally {
      asked = null;
      show();
    }
  }

  function follow() {
    if (status === null || isPaused || document.hidden || grid.is !== "live") return;
    const isOld = Date.now() - fetchedAt > RENEW_MS;
    const isShown = grid.version.split(" ").includes(main.dataset.version);
    const isSeldom = isGone || main.querySelector("[data-slow]") !== null;
    const isDue = isOld && Date.now() - askedAt > RENEW_MS;
    if (isSeldom ? isDue : !isShown || postponed > 0 || isOld || isSignedOut) refresh();
  }

  function connect() {
    if (port !== null) return;
    if ("SharedWorker" in window) {
      port = new SharedWorker(TICKS, { name: "divvy" }).port;
    } else {
      port = new Worker(TICKS);
    }
    port.onmessage = (event) => {
      grid = event.data;
      // The connection of the request may be as dead as the stream's.
      if (grid.is !== "live") asked?.abort();
      show();
      document.dispatchEvent(new CustomEvent("divvy:tick", { detail: { ...grid, isPaused } }));
      follow();
    };
  }

  function disconnect() {
    port?.postMessage("leave");
    port?.close?.();
    port?.terminate?.();
    port = null;
  }

  // --- Jobs whose end this browser waits for

  const AWAITED = "divvy-awaited";
  /** Those of them whose end a notification has told. */
  const NOTIFIED = "divvy-notified";
  const MAX_AWAITED = 50;
  const toasts = document.getElementById("toasts");
  let askedFor = "";

  function idsOf(key) {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? [];
    } catch {
      return [];
    }
  }

  function keepIds(key, ids) {
    localStorage.setItem(key, JSON.stringify(ids.slice(-MAX_AWAITED)));
  }

  const awaited = () => idsOf(AWAITED);

  const dropIds = (key, ids) => keepIds(key, idsOf(key).filter((other) => !ids.includes(other)));

  function awaitEnds(ids) {
    dropIds(NOTIFIED, ids);
    keepIds(AWAITED, [...awaited().filter((other) => !ids.includes(other)), ...ids]);
  }

  function forget(id) {
    for (const key of [AWAITED, NOTIFIED]) dropIds(key, [id]);
    document.getElementById(`toast-${id}`)?.remove();
  }

  function notify(job, text) {
    if (!("Notification" in window) || Notification.permission !== "granted") return;
    const notified = idsOf(NOTIFIED);
    if (notified.includes(job.id)) return;
    keepIds(NOTIFIED, [...notified, job.id]);
    try {
      // Tabs tell of a job once: the tag replaces what another tab has shown.
      const note = new Notification("divvy", { body: text, tag: job.id });
      note.onclick = () => window.open(`/jobs/${job.id}`);
    } catch {
      // Chrome on Android has notifications of service workers alone; the page has told of it.
    }
  }

  function announce(job) {
    if (document.getElementById(`toast-${job.id}`) !== null) return;
    const text = `${job.kind} ${job.id.slice(-12)} ${job.state === "canceled" ? "was canceled" : job.state}`;
    const link = Object.assign(document.createElement("a"), { href: `/jobs/${job.id}`, textContent: text });
    const words = document.createElement("p");
    words.append(link);
    const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Dismiss" });
    close.addEventListener("click", () => forget(job.id));
    const toast = Object.assign(document.createElement("div"), { className: "toast", id: `toast-${job.id}` });
    toast.append(words, close);
    toasts.append(toast);
    notify(job, text);
  }

  async function askForEnds(version) {
    const ids = awaited().filter((id) => document.getElementById(`toast-${id}`) === null);
    const question = `${version} ${ids}`;
    if (ids.length === 0 || question === askedFor) return;
    askedFor = question;
    try {
      const query = new URLSearchParams(ids.map((id) => ["id", id]));
      const response = await fetch(`/jobs/states?${query}`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      if (!response.ok || response.redirected) return;
      for (const job of await response.json()) announce(job);
    } catch {
      askedFor = "";
    }
  }

  const here = new URL(location.href);
  if (here.searchParams.has("submitted")) {
    const ids = here.searchParams.get("submitted").split(",").filter((id) => id !== "");
    awaitEnds(ids);
  }
  if (TOLD_ONCE.some((name) => here.searchParams.has(name))) {
    for (const name of TOLD_ONCE) here.searchParams.delete(name);
    history.replaceState(null, "", here);
  }

  function offerNotice() {
    const button = document.getElementById("notify");
    if (button === null || !("Notification" in window) || !window.isSecureContext) return;
    const id = button.dataset.job;
    const isAwaited = awaited().includes(id) && Notification.permission === "granted";
    button.hidden = isAwaited || Notification.permission === "denied";
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("#notify");
    if (button === null) return;
    await Notification.requestPermission();
    awaitEnds([button.dataset.job]);
    offerNotice();
  });
  document.addEventListener("divvy:patched", offerNotice);
  document.addEventListener("divvy:tick", (event) => {
    if (event.detail.is === "live") askForEnds(event.detail.version);
  });
  window.addEventListener("storage", (event) => {
    if (event.key !== AWAITED) return;
    for (const toast of [...toasts.children]) if (!awaited().includes(toast.id.slice(6))) toast.remove();
  });
  offerNotice();

  if (status !== null) {
    pause.addEventListener("click", () => {
      isPaused = !isPaused;
      sessionStorage.setItem("paused", isPaused ? "yes" : "no");
      show();
      follow();
    });
    document.addEventListener("visibilitychange", follow);
    document.addEventListener("pointermove", () => { movedAt = Date.now(); }, { passive: true });
  }
  if (status !== null || awaited().length > 0) {
    // A page that the browser kept comes back without its stream.
    window.addEventListener("pageshow", connect);
    window.addEventListener("pagehide", disconnect);
    connect();
  }
})();
