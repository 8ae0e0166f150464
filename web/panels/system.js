import { useEffect, useState } from "preact/hooks";
import { get } from "../api.js";
import { place } from "../lib/route.js";
import { html } from "../ui/html.js";
import { Panel } from "../ui/panel.js";
import { Disk } from "./disk.js";
import { Settings } from "./settings.js";
import { Machine } from "./system_charts.js";
import { Doctor } from "./system_doctor.js";
import { Log } from "./system_log.js";
import { AtWork } from "./system_memory.js";
import { Session } from "./system_session.js";

const LOOK_MS = 5000; // at what runs

/** The machine, what runs on it, what takes its disk, what doctor finds and what the daemon says; or its settings. */
export function System({ open }) {
  return open[0] === "settings" ? html`<${Settings} />` : html`<${Overview} />`;
}

function Overview() {
  const [found, setFound] = useState({ running: [], session: null });
  const look = () => get("/api/ps").then(setFound, () => {}); // the banner says when the studio is away
  useEffect(() => {
    look();
    const timer = setInterval(() => document.hidden || look(), LOOK_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<${Panel} title="System" verbs=${html`<a class="button" href=${place("system", ["settings"])}>Settings</a>`}>
    <${Machine} />
    <${AtWork} running=${found.running} />
    <${Session} session=${found.session} ended=${look} />
    <${Disk} />
    <${Doctor} />
    <${Log} />
  </${Panel}>`;
}
