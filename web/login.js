// The log-in. It stands alone: of the page itself nothing is loaded yet. Where somebody was is behind the address's "#".

import { nameOf } from "./lib/browser.js";

/** @type {HTMLFormElement} */
const form = document.querySelector("#login");
/** @type {HTMLInputElement} */
const field = document.querySelector("#given");
/** @type {HTMLButtonElement} */
const enter = document.querySelector("#enter");
const wrong = document.querySelector("#wrong");

const AS_ANOTHER = "#as-another"; // before the place, of somebody who is let in and wants to do more

/** To the page, where it was left. */
const goBack = () => location.replace(`/${location.hash.replace(AS_ANOTHER, "")}`);

/** Eight digits, however they are spaced, are a code. */
function asked(text) {
  const digits = text.replace(/[\s-]/g, "");
  return /^\d{8}$/.test(digits) ? { code: digits, name: nameOf(navigator.userAgent) } : { token: text.trim() };
}

async function logIn(event) {
  event.preventDefault();
  enter.disabled = true;
  wrong.textContent = "";
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch("/api/login", { method: "POST", headers, body: JSON.stringify(asked(field.value)) });
    if (answer.ok) return goBack();
    const { error } = await answer.json();
    wrong.textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
  } catch {
    wrong.textContent = "The studio does not answer; try again when it is back.";
  }
  field.setAttribute("aria-invalid", "true");
  enter.disabled = false;
  field.select();
}

form.addEventListener("submit", logIn);
// Who is let in already, or need not log in, is here by mistake.
if (!location.hash.startsWith(AS_ANOTHER)) fetch("/api/login", { cache: "no-store" }).then(({ ok }) => ok && goBack(), () => {});
