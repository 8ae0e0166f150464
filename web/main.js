// Mounts the page, follows the studio, and says what changes to those who do not look.

import { effect } from "@preact/signals";
import { h, render } from "preact";
import { follow } from "./events.js";
import { share } from "./lib/format.js";
import { changes, done, title } from "./lib/jobs.js";
import { groups, jobs, phase } from "./state.js";
import { followKeys } from "./ui/keys.js";
import { Studio } from "./ui/studio.js";

render(h(Studio), document.getElementById("studio"));

effect(() => {
  const [first] = groups.value.live;
  const part = first && done(first);
  document.title = [part != null && share(part), first && title(first).join(" "), "miStudio"].filter(Boolean).join(" · ");
});

// The state of a job, and of the line to the studio; never progress, which would talk without end.
let told = null;
let was = phase.value;
effect(() => {
  const [now, is] = [jobs.value, phase.value];
  const lines = told && is === "live" ? changes(told, now) : [];
  if (is === "lost" && was !== "lost") lines.push("The connection to the studio is lost");
  if (is === "live" && was === "lost") lines.push("The connection to the studio is back");
  if (is === "live") told = now;
  was = is;
  if (lines.length) document.getElementById("said").textContent = `${lines.join(". ")}.`;
});

followKeys();
follow();
