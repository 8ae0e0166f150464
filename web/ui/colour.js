// The theme, and colours for what paints by itself: a canvas takes no variables.

import { computed, signal } from "@preact/signals";
import { keep } from "../kept.js";
import { html } from "./html.js";

const light = matchMedia("(prefers-color-scheme: light)");
const systemIsLight = signal(light.matches);
light.addEventListener("change", () => (systemIsLight.value = light.matches));

/** What was chosen: "dark", "light" or "" for the system's. theme.js has read it before the page was drawn. */
export const theme = signal(document.documentElement.dataset.theme ?? "");

/** What it comes to, "dark" or "light". Who paints a canvas reads it, to paint anew when it changes. */
export const scheme = computed(() => theme.value || (systemIsLight.value ? "light" : "dark"));

/** Choose a theme, here and for the next visit. */
export function choose(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  keep("theme", name || null);
  theme.value = name;
}

/** The colour that a variable of tokens.css has in the theme that is on: "--series-1" → "rgb(110, 168, 254)" */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const THEMES = [["", "Auto"], ["dark", "Dark"], ["light", "Light"]];

/** Dark, light, or as the system has it. */
export function Theme() {
  return html`<select class="quiet" aria-label="Theme" title="Theme: Auto is as the system has it" onChange=${(event) => choose(event.target.value)}>
    ${THEMES.map(([of, words]) => html`<option key=${of} value=${of} selected=${of === theme.value}>${words}</option>`)}</select>`;
}
