"use strict";
// Draws the task stream: a row for each slot, a bar for each lease, a color for each job.
(() => {
  const ROW = 18;
  const GAP = 3;
  const AXIS = 22;
  const MIN_SPAN_MS = 200;
  /** Leases that have not come by then are asked for again. */
  const ANSWER_MS = 30000;
  /** Jobs that are named beside their color. */
  const MAX_NAMED = 8;
  /** Hues of jobs, none of them the red of a failure. */
  const HUES = [212, 40, 150, 280, 190, 96, 250, 310];
  const [ROW_OF, START, LENGTH, JOB, LEASES, FAILED, SECONDS, BUSY, TASKS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

  const HINT = "Point at a bar, click to keep it, or walk through them with the arrow keys. Ctrl or Shift and the wheel zoom.";

  const section = document.getElementById("stream");
  const canvas = section.querySelector("canvas");
  const output = section.querySelector("output");
  const note = document.getElementById("stream-note");
  const jobLink = document.getElementById("lease-job");
  const named = document.getElementById("stream-jobs");
  /** By id: a job keeps its own while it is in the window. */
  const hues = new Map();
  const seconds = Number(section.dataset.seconds);
  /** A second moves the bars of a long window by less than a pixel, and its leases take long to gather. */
  const EVERY_MS = "slow" in section.dataset ? (seconds * 1000) / 300 : 0;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  let stream = null;
  let view = { from: 0, to: seconds * 1000 };
  let picked = -1;
  /** The middle of the picked bar when it was picked, in milliseconds since 1970. */
  let pickedAt = 0;
  let isHeld = false;
  let labels = 0;
  let asked = null;
  let askedAt = 0;
  let namedNow = "";

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const begin = () => stream.ends_at_ms - seconds * 1000;
  const isAll = () => view.from === 0 && view.to === seconds * 1000;

  /** Gives new jobs the hues that the fewest have: the one of its id, where that is one of them. */
  function chooseHues() {
    const present = new Set(stream.jobs.map(([id]) => id));
    for (const id of [...hues.keys()]) if (!present.has(id)) hues.delete(id);
    const uses = new Map(HUES.map((hue) => [hue, 0]));
    for (const hue of hues.values()) uses.set(hue, uses.get(hue) + 1);
    for (const id of present) {
      if (hues.has(id)) continue;
      const own = HUES[Number.parseInt(id.slice(-6), 16) % HUES.length];
      const hue = HUES.reduce((best, other) => (uses.get(other) < uses.get(best) ? other : best), own);
      hues.set(id, hue);
      uses.set(hue, uses.get(hue) + 1);
    }
  }

  function fill(job) {
    const [saturation, lightness] = dark.matches ? ["52%", "58%"] : ["58%", "52%"];
    return `hsl(${hues.get(stream.jobs[job][0])} ${saturation} ${lightness})`;
  }

  function jobName(job) {
    const [id, kind] = stream.jobs[job];
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "sign");
    svg.setAttribute("viewBox", "0 0 20 12");
    svg.setAttribute("aria-hidden", "true");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ width: 20, height: 12, rx: 2, fill: fill(job) })) rect.setAttribute(name, value);
    svg.append(rect);
    const link = Object.assign(document.createElement("a"), { href: `/jobs/${id}` });
    link.append(svg, ` ${kind} ${id.slice(-12)}`);
    return link;
  }

  /** Names the jobs with the most leases; the links stay while the jobs do. */
  function nameJobs() {
    const leases = new Map();
    for (const bar of stream.bars) leases.set(bar[JOB], (leases.get(bar[JOB]) ?? 0) + Math.max(bar[LEASES], 1));
    const most = [...leases.keys()].sort((one, other) => leases.get(other) - leases.get(one)).slice(0, MAX_NAMED);
    most.sort((one, other) => (stream.jobs[one][0] < stream.jobs[other][0] ? -1 : 1));
    const more = leases.size - most.length;
    const wanted = `${dark.matches} ${more} ${most.map((job) => stream.jobs[job][0])}`;
    if (wanted === namedNow || named.matches(":hover, :focus-within")) return;
    namedNow = wanted;
    named.replaceChildren(...most.map(jobName), ...(more > 0 ? [`and ${more} more ${more === 1 ? "job" : "jobs"}`] : []));
  }

  /** As the tables write it: without the middle of a long id. */
  const shortName = (name) => name.replace(/[0-9a-f]{10,}([0-9a-f]{6})/gi, "…$1");
  const slotName = (row) => `${shortName(row.worker)} · ${row.slot}`;
  const x = (ms) => labels + ((ms - view.from) / (view.to - view.from)) * (canvas.clientWidth - labels);
  const y = (row) => row * (ROW + GAP);

  function fit(context, text, width) {
    if (context.measureText(text).width <= width) return text;
    let end = text.length;
    while (end > 1 && context.measureText(`…${text.slice(-end)}`).width > width) end -= 1;
    return `…${text.slice(-end)}`;
  }

  function drawBar(context, bar) {
    const left = Math.max(x(bar[START]), labels);
    const width = Math.max(x(bar[START] + bar[LENGTH]) - left, 1);
    if (left > canvas.clientWidth || x(bar[START] + bar[LENGTH]) < labels) return;
    const height = bar[BUSY] === 0 ? ROW : Math.max(Math.round((ROW * bar[BUSY]) / 100), 3);
    const top = y(bar[ROW_OF]) + ROW - height;
    const gap = width > 3 && !stream.is_aggregated ? 1 : 0;
    context.fillStyle = fill(bar[JOB]);
    context.strokeStyle = context.fillStyle;
    if (bar[BUSY] === 0) context.strokeRect(left + 0.5, top + 0.5, Math.max(width - gap - 1, 1), height - 1);
    else context.fillRect(left, top, width - gap, height);
    if (bar[SECONDS] > 0) {
      context.strokeStyle = color("--ink");
      context.setLineDash([3, 2]);
      context.strokeRect(left + 0.5, y(bar[ROW_OF]) + 0.5, Math.max(width - gap - 1, 1), ROW - 1);
      context.setLineDash([]);
    }
    if (bar[FAILED] > 0) drawFailure(context, left, y(bar[ROW_OF]), Math.max(width - gap, 3));
  }

  function drawFailure(context, left, top, width) {
    context.save();
    context.beginPath();
    context.rect(left, top, width, ROW);
    context.clip();
    context.fillStyle = color("--red");
    context.fillRect(left, top, width, ROW);
    context.strokeStyle = color("--card");
    context.lineWidth = 1.5;
    context.beginPath();
    for (let at = left - ROW; at < left + width; at += 7) {
      context.moveTo(at, top + ROW);
      context.lineTo(at + ROW, top);
    }
    context.stroke();
    context.restore();
  }

  function drawAxis(context, width, bottom) {
    const span = view.to - view.from;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900].find((s) => (span / 1000 / s) * 84 <= width - labels) ?? 900;
    const first = Math.ceil((begin() + view.from) / (step * 1000)) * step * 1000;
    context.textAlign = "center";
    for (let at = first; at <= begin() + view.to; at += step * 1000) {
      const place = x(at - begin());
      context.fillStyle = color("--rule");
      context.fillRect(Math.round(place), 0, 1, bottom);
      context.fillStyle = color("--soft");
      const text = new Date(at).toISOString().slice(11, step < 1 ? 21 : 19);
      if (place - 30 > labels && place + 30 < width) context.fillText(text, place, bottom + 15);
    }
  }

  function draw() {
    if (stream === null) return;
    nameJobs();
    const width = canvas.clientWidth;
    const bottom = Math.max(stream.rows.length, 1) * (ROW + GAP);
    const scale = window.devicePixelRatio || 1;
    const height = bottom + AXIS;
    if (canvas.style.height !== `${height}px`) canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const longest = Math.max(0, ...stream.rows.map((row) => context.measureText(slotName(row)).width));
    labels = Math.min(Math.ceil(longest) + 10, Math.round(width * 0.28));
    drawAxis(context, width, bottom);
    context.textAlign = "left";
    stream.rows.forEach((row, place) => {
      context.fillStyle = color("--soft");
      context.fillText(fit(context, slotName(row), labels - 8), 0, y(place) + 13);
      context.fillStyle = color("--track");
      context.fillRect(labels, y(place) + ROW, width - labels, 1);
    });
    for (const bar of stream.bars) drawBar(context, bar);
    const bar = stream.bars[picked];
    if (bar) {
      context.strokeStyle = color("--ink");
      context.lineWidth = 2;
      const left = Math.max(x(bar[START]), labels);
      context.strokeRect(left - 1, y(bar[ROW_OF]) - 1, Math.max(x(bar[START] + bar[LENGTH]) - left, 3) + 2, ROW + 2);
    }
  }

  function time(ms) {
    if (ms < 1000) return `${ms} ms`;
    return ms < 60000 ? `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s` : `${Math.floor(ms / 60000)} min ${Math.floor((ms % 60000) / 1000)} s`;
  }

  function describe(bar) {
    const [id, kind] = stream.jobs[bar[JOB]];
    const start = `${new Date(begin() + bar[START]).toISOString().slice(11, 19)} UTC`;
    const row = stream.rows[bar[ROW_OF]];
    const what = [`${shortName(row.worker)} slot ${row.slot}`, `${kind} ${id.slice(-12)}`, `from ${start} for ${time(bar[LENGTH])}`];
    if (stream.is_aggregated) what.push(`${bar[LEASES]} leases ended, busy ${bar[BUSY]} %`);
    else what.push(`${bar[TASKS]} ${bar[TASKS] === 1 ? "task" : "tasks"}`);
    if (bar[FAILED] > 0) what.push(stream.is_aggregated ? `${bar[FAILED]} failed` : "failed");
    if (bar[SECONDS] > 0) what.push(stream.is_aggregated ? `${bar[SECONDS]} second attempts` : "second attempt");
    if (bar[BUSY] === 0) what.push("stopped");
    return what.join(" · ");
  }

  function pick(place) {
    picked = place;
    const bar = stream?.bars[place];
    if (bar) pickedAt = begin() + bar[START] + bar[LENGTH] / 2;
    output.textContent = bar ? describe(bar) : HINT;
    jobLink.hidden = !bar;
    if (bar) jobLink.href = `/jobs/${stream.jobs[bar[JOB]][0]}`;
    draw();
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const row = Math.floor(py / (ROW + GAP));
    return stream.bars.findLastIndex((bar) => bar[ROW_OF] === row && x(bar[START]) <= px + 1 && x(bar[START] + bar[LENGTH]) >= px - 1);
  }

  function explain() {
    const hidden = stream.hidden_rows > 0 ? ` ${stream.hidden_rows} more ${stream.hidden_rows === 1 ? "slot is" : "slots are"} not drawn.` : "";
    const zoom = isAll() ? "" : ` Zoomed to ${time(Math.round(view.to - view.from))}; 0 shows all.`;
    const many = stream.is_aggregated ? "There are more leases than fit: a bar stands for several, its height for how busy the slot was." : "";
    note.textContent = `${many}${hidden}${zoom}`.trim();
  }

  function zoom(factor, middle) {
    const span = Math.min(Math.max((view.to - view.from) * factor, MIN_SPAN_MS), seconds * 1000);
    const share = (middle - view.from) / (view.to - view.from);
    const from = Math.min(Math.max(middle - share * span, 0), seconds * 1000 - span);
    view = { from, to: from + span };
    explain();
    draw();
  }

  function walk(key) {
    const bar = stream.bars[picked];
    const row = bar ? bar[ROW_OF] : 0;
    const middle = bar ? bar[START] + bar[LENGTH] / 2 : view.to;
    const near = (wanted) => {
      let best = -1;
      stream.bars.forEach((other, place) => {
        const distance = Math.abs(other[START] + other[LENGTH] / 2 - middle);
        if (wanted(other, place) && (best < 0 || distance < Math.abs(stream.bars[best][START] + stream.bars[best][LENGTH] / 2 - middle))) best = place;
      });
      return best;
    };
    const next = {
      ArrowLeft: () => near((other, place) => other[ROW_OF] === row && (bar ? other[START] < bar[START] : true) && place !== picked),
      ArrowRight: () => near((other, place) => other[ROW_OF] === row && (bar ? other[START] > bar[START] : true) && place !== picked),
      ArrowUp: () => near((other) => other[ROW_OF] === row - 1),
      ArrowDown: () => near((other) => other[ROW_OF] === (bar ? row + 1 : 0)),
    }[key]();
    if (next < 0) return;
    bringIntoView(stream.bars[next]);
    pick(next);
  }

  /** Moves a zoomed view to a bar that is beside it. */
  function bringIntoView(bar) {
    const [start, end] = [bar[START], bar[START] + bar[LENGTH]];
    if (end > view.from && start < view.to) return;
    const span = view.to - view.from;
    const from = Math.min(Math.max((start + end - span) / 2, 0), seconds * 1000 - span);
    view = { from, to: from + span };
  }

  /** The place of a bar in a window that begins so many milliseconds later; -1 if the window has no such bar. Rows may have come
   * and gone, a bar is cut off where the window begins, and merged bars have other limits in each window. */
  function placeOf(before, slot, moved) {
    const row = stream.rows.findIndex((other) => other.worker === slot.worker && other.slot === slot.slot);
    if (stream.is_aggregated) {
      const middle = pickedAt - begin();
      return stream.bars.findIndex((bar) => bar[ROW_OF] === row && bar[START] <= middle && middle < bar[START] + bar[LENGTH]);
    }
    if (before[START] + before[LENGTH] < moved) return -1;
    const start = Math.max(before[START] - moved, 0);
    return stream.bars.findIndex((bar) => bar[ROW_OF] === row && Math.abs(bar[START] - start) < 3);
  }

  async function load() {
    if (asked !== null) {
      if (Date.now() - askedAt > ANSWER_MS) asked.abort();
      return;
    }
    asked = new AbortController();
    askedAt = Date.now();
    try {
      const response = await fetch(`/task-stream/data?seconds=${seconds}`, { cache: "no-store", signal: asked.signal });
      if (!response.ok || response.redirected) return;
      const next = await response.json();
      const before = stream?.bars[picked];
      const slot = before && stream.rows[before[ROW_OF]];
      const moved = stream === null ? 0 : next.ends_at_ms - stream.ends_at_ms;
      stream = next;
      chooseHues();
      section.hidden = false;
      // The picked bar stays picked while time goes on.
      picked = before ? placeOf(before, slot, moved) : -1;
      if (before && picked < 0) {
        isHeld = false;
        pick(-1);
      }
      explain();
      draw();
    } catch {
      // The next tick tries again.
      askedAt = 0;
    } finally {
      asked = null;
    }
  }

  canvas.addEventListener("pointermove", (event) => {
    if (stream === null) return;
    if (event.buttons === 1 && !isAll()) {
      const ms = (event.movementX / (canvas.clientWidth - labels)) * (view.to - view.from);
      const from = Math.min(Math.max(view.from - ms, 0), seconds * 1000 - (view.to - view.from));
      view = { from, to: from + view.to - view.from };
      draw();
      return;
    }
    const place = at(event);
    if (!isHeld && place !== picked) pick(place);
  });
  canvas.addEventListener("pointerleave", () => {
    if (!isHeld && document.activeElement !== canvas) pick(-1);
  });
  // A bar that was clicked stays picked, so that the pointer can go to its job.
  canvas.addEventListener("click", (event) => {
    if (stream === null) return;
    pick(at(event));
    isHeld = picked >= 0;
  });
  section.querySelector(".zoom").addEventListener("click", (event) => {
    const how = event.target.closest("button")?.dataset.zoom;
    if (stream === null || how === undefined) return;
    if (how === "all") zoom(seconds * 1000, 0);
    else zoom(how === "in" ? 0.5 : 2, stream.bars[picked] ? stream.bars[picked][START] : view.to);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const middle = view.from + ((event.clientX - box.left - labels) / (canvas.clientWidth - labels)) * (view.to - view.from);
    zoom(event.deltaY + event.deltaX > 0 ? 1.25 : 0.8, middle);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => {
    const box = canvas.getBoundingClientRect();
    zoom(0.5, view.from + ((event.clientX - box.left - labels) / (canvas.clientWidth - labels)) * (view.to - view.from));
  });
  canvas.addEventListener("keydown", (event) => {
    if (stream === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const middle = stream.bars[picked] ? stream.bars[picked][START] : view.to;
    if (event.key === "+" || event.key === "=") zoom(0.5, middle);
    else if (event.key === "-") zoom(2, middle);
    else if (event.key === "0") zoom(seconds * 1000, 0);
    else if (event.key === "Enter" && stream.bars[picked]) location.assign(jobLink.href);
    else if (event.key === "Escape" && stream.bars[picked]) {
      isHeld = false;
      pick(-1);
    } else if (event.key.startsWith("Arrow")) walk(event.key);
    else return;
    event.preventDefault();
  });

  document.addEventListener("divvy:tick", (event) => {
    if (event.detail.is !== "live") asked?.abort();
    else if (!event.detail.isPaused && !document.hidden && (asked !== null || Date.now() - askedAt >= EVERY_MS)) load();
  });
  dark.addEventListener("change", draw);
  new ResizeObserver(draw).observe(section);
  load();
})();
