// The page inside Airflow's frame: its colours, links, pictures, and the refresh while a run is active.
"use strict";

const inFrame = window.parent !== window;
const root = document.documentElement;

// Colours: Airflow's, also when its theme is changed.
const COLOURS = {bg: "bg", subtle: "bg-muted", fg: "fg", muted: "fg-muted", border: "border-emphasized", brand: "fg-info"};

function takeTheme() {
  const host = inFrame ? parent.document.documentElement : null;
  const dark = host ? host.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  root.classList.toggle("dark", dark);
  root.style.colorScheme = dark ? "dark" : "light";
  if (!host) return;
  const style = parent.getComputedStyle(host);
  for (const [name, theirs] of Object.entries(COLOURS)) {
    const value = style.getPropertyValue(`--chakra-colors-${theirs}`).trim();
    if (value) root.style.setProperty(`--${name}`, value);
  }
}

// Times: in the time zone that is chosen in Airflow.
function showTimes() {
  let zone;
  try { zone = inFrame ? JSON.parse(parent.localStorage.getItem("timezone") || "null") : undefined; } catch { zone = parent.localStorage.getItem("timezone"); }
  const options = zone ? {timeZone: zone} : {};
  for (const time of document.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    if (Number.isNaN(when.valueOf())) continue;
    // "2026-11-26 12:14:52", as Airflow writes it.
    try { time.textContent = when.toLocaleString("sv-SE", options); } catch { time.textContent = when.toLocaleString("sv-SE"); }
    time.title = time.dateTime;
  }
}

// Links: the frame may neither open tabs nor, on Airflow 3.1, save files; its parent may.
function clickInParent(href, attributes) {
  const page = inFrame ? parent.document : document;
  const link = page.createElement("a");
  Object.assign(link, attributes);
  link.href = href;
  page.body.appendChild(link);
  link.click();
  link.remove();
}

function openOutside(href) {
  const address = new URL(href, location.href);
  if (!["http:", "https:"].includes(address.protocol)) return;
  clickInParent(address.href, {target: "_blank", rel: "noopener noreferrer"});
}

function goInAirflow(path) {
  if (!inFrame) return;
  parent.history.pushState({}, "", new URL(path, parent.document.baseURI));
  parent.dispatchEvent(new PopStateEvent("popstate", {state: {}}));
}

// Pictures.
const dialog = document.getElementById("enlarged");
let shown = 0;

const thumbnails = () => [...document.querySelectorAll("[data-picture]:not(.broken) img")];

function enlarge(index) {
  const all = thumbnails();
  if (!dialog || !all.length) return;
  shown = (index + all.length) % all.length;
  const image = dialog.querySelector("img");
  image.src = all[shown].src;
  image.alt = all[shown].alt;
  document.getElementById("caption").textContent = `${all[shown].alt} (${shown + 1} of ${all.length})`;
  if (!dialog.open) dialog.showModal();
}

function watchPictures() {
  for (const image of document.querySelectorAll("[data-picture] img")) {
    const broken = () => image.parentElement.classList.add("broken");
    image.addEventListener("error", broken);
    if (image.complete && !image.naturalWidth) broken();
  }
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-outside], [data-airflow], [data-download], [data-picture], [data-step], [data-close]");
  if (!target) return;
  const data = target.dataset;
  if ("outside" in data || "airflow" in data || "download" in data) event.preventDefault();
  if ("outside" in data) openOutside(target.href);
  else if ("airflow" in data) goInAirflow(data.airflow);
  else if ("download" in data) clickInParent(target.href, {download: data.download});
  else if ("picture" in data && !target.classList.contains("broken")) enlarge(thumbnails().indexOf(target.querySelector("img")));
  else if ("step" in data) enlarge(shown + Number(data.step));
  else if ("close" in data) dialog.close();
});
if (dialog) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") enlarge(shown - 1);
    if (event.key === "ArrowRight") enlarge(shown + 1);
  });
}

const filter = document.getElementById("filter");
if (filter) {
  filter.addEventListener("submit", (event) => {
    event.preventDefault();
    const usual = {sort: "started", order: "desc"};
    const given = [...new FormData(filter)].filter(([name, value]) => value !== usual[name]).filter(([, value]) => value.trim());
    location.search = new URLSearchParams(given.map(([name, value]) => [name, value.trim()])).toString();
  });
}

// Refresh: only what has changed is replaced, so that focus, open details and the player stay.
function replaceChanged(fresh) {
  const page = document.getElementById("page");
  const focused = keyOf(document.activeElement);
  const open = new Set([...page.querySelectorAll("details[open]")].map(positionOf));
  const parts = (main) => new Map([...main.children].map((part, index) => [part.id || `#${index}`, part]));
  const before = parts(page), after = parts(fresh);
  for (const [id, part] of before) if (!after.has(id)) part.remove();
  let index = 0;
  for (const [id, part] of after) {
    const old = before.get(id);
    if (!old) page.insertBefore(withSource(document.importNode(part, true), part.outerHTML), page.children[index] || null);
    else if (old.dataset.source !== part.outerHTML) old.replaceWith(withSource(document.importNode(part, true), part.outerHTML));
    index += 1;
  }
  Object.assign(page.dataset, fresh.dataset);
  for (const details of page.querySelectorAll("details")) if (open.has(positionOf(details))) details.open = true;
  if (focused && !page.contains(document.activeElement) && !(dialog && dialog.open)) {
    const same = [...page.querySelectorAll("a, button, summary")].find((element) => keyOf(element) === focused);
    if (same) same.focus({preventScroll: true});
  }
  finish();
}

function withSource(part, source) {
  part.dataset.source = source;
  return part;
}

// What is the same link, button or list of actions before and after a refresh; "" for all else.
function keyOf(element) {
  if (!element || !element.closest("#page")) return "";
  if (element.matches("summary")) return `summary ${positionOf(element)}`;
  if (element.matches("[data-picture]")) return `picture ${element.closest("section").id} ${element.querySelector("img").getAttribute("src")}`;
  return element.matches("a, button") ? `${element.tagName} ${element.getAttribute("href")} ${element.textContent}` : "";
}

const positionOf = (details) => details.id || [...document.querySelectorAll("#page .block")].indexOf(details.closest(".block"));

// Right after the end of its run a recording may not be there yet, or be replaced by its MP4 while it is read.
function retryRecording() {
  const video = document.querySelector("#recording video");
  if (video && video.error) video.load();
}

function finish() {
  showTimes();
  watchPictures();
  retryRecording();
}

function notice(text) {
  const line = document.getElementById("notice");
  line.textContent = text;
  line.hidden = !text;
}

async function refresh() {
  const answer = await fetch(location.href, {headers: {accept: "text/html"}, credentials: "same-origin"});
  if (answer.status === 401) {
    document.getElementById("page").dataset.refresh = "0";
    return notice("You are signed out. Reload Airflow to sign in.");
  }
  const main = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("page");
  if (main) replaceChanged(main);
  notice("");
}

async function keepFresh() {
  for (;;) {
    const seconds = Number(document.getElementById("page").dataset.refresh);
    await new Promise((resume) => setTimeout(resume, 1000 * (seconds || 30)));
    if (!Number(document.getElementById("page").dataset.refresh) || document.hidden) continue;
    try { await refresh(); } catch { notice("Airflow does not answer. This page tries again."); }
  }
}

// The try that is chosen on Airflow's page is the one to show.
function followTry() {
  const chosen = inFrame ? new URLSearchParams(parent.location.search).get("try_number") : null;
  const page = document.getElementById("page");
  if (chosen && /^\d+$/.test(chosen) && page.dataset.try && chosen !== page.dataset.try && chosen !== followTry.last) location.search = `?try_number=${chosen}`;
  followTry.last = chosen;
}

// Why Airflow did not take an answer.
const REFUSED = {
  401: "You are signed out. Reload Airflow to sign in, then answer.",
  403: "You may not answer: it takes the rights to edit task instances and to answer required actions of this DAG.",
  404: "This request is gone: the task has ended, or was cleared.",
  409: "This request is answered already, or the run does not wait any more.",
};

// Sends what a person has answered, while these buttons rest; the header proves that it comes from this page. What says
// why it was not taken gets the status.
async function post(what, body, buttons, refused) {
  for (const each of buttons) each.disabled = true;
  try {
    const answer = await fetch(`${document.getElementById("page").dataset.here}/${what}`, {
      method: "POST",
      credentials: "same-origin",
      headers: {"content-type": "application/json", "x-skyvern-page": "1"},
      body: JSON.stringify(body),
    });
    if (answer.ok || answer.status === 409 || answer.status === 404) await refresh();
    if (!answer.ok) refused(answer.status);
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

// The answer to a run that waits for a person.
async function decide(button) {
  await post("answer", {option: button.dataset.answer}, [...button.parentElement.querySelectorAll("[data-answer]")],
    (status) => notice(REFUSED[status] || `Airflow did not take the answer (status ${status}). Try again.`));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-answer]");
  if (button) decide(button).catch(() => notice("Airflow does not answer. Try again."));
});

// A code that a login waits for: it is sent, and not kept in this page either.
async function sendCode(form) {
  const {code: field} = form.elements, code = field.value;
  field.value = "";
  await post("code", {code}, [form.querySelector("button")],
    (status) => codeResult(REFUSED_CODE[status] || `Airflow did not take the code (status ${status}). Try again.`));
}

// Why a code was not sent to Skyvern.
const REFUSED_CODE = {
  401: "You are signed out. Reload Airflow to sign in, then send the code.",
  403: "You may not send the code: it takes the rights to edit task instances and to answer required actions of this DAG.",
  404: "The task has ended, or was cleared. Nothing was sent.",
  409: "The run does not wait for this code any more. Nothing was sent.",
  422: "That is no code: type it alone, 1 to 10 characters.",
  502: "Skyvern did not take the code. Send it again.",
};

function codeResult(text) {
  const line = document.getElementById("code-result");
  if (line) line.textContent = text;
  else notice(text);
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "code-form") return;
  event.preventDefault();
  sendCode(event.target).catch(() => codeResult("Airflow does not answer. Send the code again."));
});

takeTheme();
if (inFrame) {
  new MutationObserver(takeTheme).observe(parent.document.documentElement, {attributes: true, attributeFilter: ["class"]});
  if (!new URLSearchParams(location.search).has("try_number")) followTry();
  else followTry.last = new URLSearchParams(parent.location.search).get("try_number");
  setInterval(followTry, 1000);
}
for (const part of document.getElementById("page").children) withSource(part, part.outerHTML);
finish();
keepFresh();
document.addEventListener("visibilitychange", () => { if (!document.hidden && Number(document.getElementById("page").dataset.refresh)) refresh().catch(() => {}); });
