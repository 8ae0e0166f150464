// Before anything is drawn: the theme that was chosen in this browser. A script of its own, for modules come too late.
"use strict";

try {
  const theme = localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // a browser that keeps nothing: the system's theme it is
}
