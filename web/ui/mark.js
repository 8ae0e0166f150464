import { html } from "./html.js";

const SHAPES = {
  done: "M3 8.5l3.5 3.5L13 4.5",
  failed: "M4 4l8 8M12 4l-8 8",
  partial: "M8 3v6.5M8 12.6v.4",
  stopped: "M4 4h8v8H4z",
  paused: "M5.5 3.5v9M10.5 3.5v9",
  queued: "M8 2.5a5.5 5.5 0 1 0 .01 0z",
};

/** The shape of a state; the word stands beside it. */
export function Mark({ state }) {
  return html`<svg class="mark ${state}" viewBox="0 0 16 16" aria-hidden="true">
    <path d=${SHAPES[state] ?? SHAPES.queued} />
  </svg>`;
}
