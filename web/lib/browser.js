// What a browser calls itself when it is let in, so that it is known again in the list of what is. Pure.

const BROWSERS = [["edge", /\bEdgA?\//], ["firefox", /\b(Firefox|FxiOS)\//], ["chrome", /\b(Chrome|Chromium|CriOS|HeadlessChrome)\//], ["safari", /\bSafari\//]];
const SYSTEMS = [["android", /Android/], ["iphone", /iPhone/], ["ipad", /iPad/], ["windows", /Windows/], ["mac", /Macintosh/], ["linux", /Linux|X11/]];

/** A user agent → "firefox-linux": a name as tokens have them. */
export const nameOf = (agent) => [called(BROWSERS, agent) ?? "browser", called(SYSTEMS, agent)].filter(Boolean).join("-");

const called = (list, agent) => list.find(([, of]) => of.test(agent))?.[0];
