import { html } from "./html.js";

// Strokes in a square of 20.
const STROKES = {
  datasets: "M4 5.5c0-1.4 2.7-2.5 6-2.5s6 1.1 6 2.5-2.7 2.5-6 2.5-6-1.1-6-2.500zM4 5.500v9c0 1.4 2.7 2.5 6 2.500s6-1.1 6-2.500v-9M4 10c0 1.4 2.7 2.5 6 2.500s6-1.1 6-2.5",
  models: "M10 2.500l6.5 3.700v7.600L10 17.500l-6.5-3.700V6.200zM3.7 6.300L10 10l6.3-3.700M10 10v7.2",
  saes: "M3 4v12M17 4v12M3 6l14 8M3 10h14M3 14l14-8",
  training: "M3 3v14h14M5.5 6c1.5 5.5 4 7.5 11 8",
  features: "M4 5h2M4 10h2M4 15h2M9 5h7M9 10h4.500M9 15h6",
  steering: "M3 6h5M12 6h5M3 14h8M15 14h2M10 4v4M13 12v4",
  system: "M3 4h14v9.500H3zM7 17h6M10 13.500V17M6 9.500l2-2.5 2.5 3 1.5-2h2",
};

/** The sign of a panel. Its word stands beside it. */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${STROKES[name]} /></svg>`;
}

const [PLACES, MIDDLE] = [[9, 16, 23], 16];

/** The studio's own sign, as icon.svg has it. */
export function Sign() {
  return html`<svg class="sign" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true"><rect width="32" height="32" rx="7" fill="#0b5fd0" />
    ${PLACES.map((y) => PLACES.map((x) => (x === MIDDLE && y === MIDDLE
      ? html`<circle cx=${x} cy=${y} r="4.5" fill="#fff" />`
      : html`<circle cx=${x} cy=${y} r="2" fill="#fff" opacity=".45" />`)))}</svg>`;
}
