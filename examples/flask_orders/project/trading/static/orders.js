"use strict";
// The server makes the page, from exact numbers. Here it is made anew whenever an event tells that something has
// happened, and what differs is put in its place.

const PAUSE = 100; // ms in which further events may come
const BEHIND = 400; // ms until the page is asked for again, if it was older than what was heard
const AGAIN = 1000; // ms until the page is asked for again, if it could not be had
const PATIENCE = 3000; // ms for which a connection may be away before that is said
const TYPES = ["order_submitted", "order_event", "balance_update", "balance_snapshot"];
const FLASH = [[{ background: "color-mix(in srgb, var(--accent) 30%, transparent)" }, { background: "transparent" }], 1200];
const ARRIVAL = [[{ opacity: 0, transform: "translateY(-0.5rem)" }, {}], 350];

const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

const main = document.getElementById("page");
const connection = document.getElementById("connection");
const news = document.getElementById("news");
let heard = Number(main.dataset.after); // the newest event that we know of
let timer = null; // for the next look
let isLooking = false;
let isDue = false; // something came while we looked

function lookIn(milliseconds) {
  if (isLooking) isDue = true;
  else timer ??= setTimeout(look, milliseconds);
}

async function look() {
  timer = null;
  isLooking = true;
  isDue = false;
  let pause = null;
  try {
    const response = await fetch(location.pathname);
    if (response.redirected) return location.reload(); // signed out
    if (!response.ok) throw new Error(response.statusText);
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    show(fresh);
    if (source.readyState === EventSource.OPEN) say("live", "Live");
    // Handlers may not have done their work yet when the page hears of an event.
    if (Number(fresh.getElementById("page").dataset.after) < heard) pause = BEHIND;
    if (isDue) pause = PAUSE;
  } catch {
    pause = AGAIN;
    sayLater();
  } finally {
    isLooking = false;
  }
  if (pause !== null) lookIn(pause);
}

function show(fresh) {
  const told = new Set([...document.querySelectorAll("[data-news]")].map((order) => order.id));
  for (const part of document.querySelectorAll("[data-live]")) update(part, fresh.getElementById(part.id));
  const ended = [...document.querySelectorAll("[data-news]")].filter((order) => !told.has(order.id));
  if (ended.length) news.textContent = ended.map((order) => order.dataset.news).join(". ");
}

// Make `old` equal to `fresh`, and leave alone what is so already: the focus, a selection, a bar that grows.
function update(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = fresh.data;
    if (old.parentElement.matches("[data-flash]")) animate(old.parentElement, FLASH);
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const children = [...fresh.childNodes];
  for (const [place, child] of children.entries()) {
    const here = old.childNodes[place] ?? null;
    const same = child.id ? [...old.children].find((other) => other.id === child.id) : here;
    if (same && same.nodeName === child.nodeName && (same.id ?? "") === (child.id ?? "")) {
      if (same !== here) old.insertBefore(same, here);
      update(same, child);
    } else {
      old.insertBefore(child, here);
      if (child.id) animate(child, ARRIVAL);
    }
  }
  while (old.childNodes.length > children.length) old.lastChild.remove();
}

function animate(element, [frames, duration]) {
  if (!isCalm.matches) element.animate(frames, { duration, easing: "ease-out" });
}

let source = null;

function connect() {
  source = new EventSource(`${main.dataset.events}?after=${heard}`);
  for (const type of TYPES) {
    source.addEventListener(type, (event) => {
      heard = Math.max(heard, Number(event.lastEventId));
      lookIn(PAUSE);
    });
  }
  source.onopen = () => lookIn(0); // also when nothing has happened: it may be that nobody would tell
  source.onerror = () => {
    // The answer ends now and then, and the browser asks for the next one by itself, unless it was refused.
    sayLater();
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(connect, AGAIN);
    lookIn(0);
  };
}

let patience = null;

function say(state, text) {
  clearTimeout(patience);
  patience = null;
  if (connection.dataset.state === state) return;
  connection.dataset.state = state;
  connection.textContent = text;
}

function sayLater() {
  patience ??= setTimeout(() => say("away", "Reconnecting…"), PATIENCE);
}

document.getElementById("place").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = document.getElementById("problem");
  problem.textContent = "";
  try {
    const body = new FormData(event.target, event.submitter);
    const response = await fetch(event.target.action, { method: "POST", body, redirect: "manual" });
    if (response.type !== "opaqueredirect") problem.textContent = await response.text();
  } catch {
    problem.textContent = "The order could not be sent.";
  }
});

sayLater();
connect();
