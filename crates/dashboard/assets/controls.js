"use strict";
// Controls beyond links and forms: a question is a dialog over the page, an id is copied, and a form to which its user has come
// back gets another key.
(() => {
  const COPIED_MS = 2000;
  const ANSWER_MS = 30000;

  // --- Questions

  let dialog = null;
  let isAsking = false;

  /** A question that cannot be asked. */
  function noAnswer() {
    const question = Object.assign(document.createElement("div"), { id: "question", className: "question" });
    const heading = Object.assign(document.createElement("h1"), { id: "question-title", textContent: "The coordinator does not answer" });
    const words = Object.assign(document.createElement("p"), { textContent: "Nothing was changed. Try again when the page is live." });
    const back = Object.assign(document.createElement("button"), { type: "button", textContent: "Back" });
    back.dataset.back = "";
    question.append(heading, words, back);
    return question;
  }

  /** The page has its own first heading. */
  function lower(heading) {
    const lowered = Object.assign(document.createElement("h2"), { id: heading.id });
    lowered.append(...heading.childNodes);
    heading.replaceWith(lowered);
  }

  function open(question, link) {
    lower(question.querySelector("h1"));
    dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "question-title");
    dialog.append(question);
    document.body.append(dialog);
    dialog.addEventListener("click", (event) => {
      // Beside the question is the backdrop.
      if (event.target !== dialog && !event.target.closest("[data-back]")) return;
      event.preventDefault();
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      dialog = null;
      // The page may have changed meanwhile, and not every browser focuses a link that is clicked.
      (link.isConnected ? link : document.getElementById("main")).focus();
    });
    dialog.showModal();
    // The answer that changes nothing comes first.
    dialog.querySelector("[data-back]").focus();
  }

  async function ask(link) {
    if (dialog !== null || isAsking) return;
    isAsking = true;
    try {
      const response = await fetch(link.href, { cache: "no-store", headers: { accept: "text/html" }, signal: AbortSignal.timeout(ANSWER_MS) });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const question = page.getElementById("question");
      if (question === null) location.assign(link.href);
      else open(question, link);
    } catch {
      open(noAnswer(), link);
    } finally {
      isAsking = false;
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-ask]");
    if (link === null || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    ask(link);
  });
  // A page that the browser keeps comes back without its question.
  window.addEventListener("pagehide", () => dialog?.close());

  // --- Ids

  function offerCopies() {
    for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button === null) return;
    const label = button.dataset.label ?? button.textContent;
    button.dataset.label = label;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => { button.textContent = label; }, COPIED_MS);
  });
  document.addEventListener("divvy:patched", offerCopies);
  offerCopies();

  // --- Forms

  /** As `crypto.randomUUID`, which only pages over HTTPS and of localhost have. */
  function uuid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  // A form that is sent twice makes one job. A form that its user has come back to is meant to make another.
  window.addEventListener("pageshow", (event) => {
    const isBack = event.persisted || performance.getEntriesByType("navigation")[0]?.type === "back_forward";
    if (!isBack) return;
    for (const key of document.querySelectorAll('input[type="hidden"][name="key"]')) key.value = uuid();
  });
})();
