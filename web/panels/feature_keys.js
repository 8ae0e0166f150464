import { useEffect } from "preact/hooks";

const TYPED = "input, textarea, select, dialog";
const KEYS = { "[": "main a[rel=prev]", "]": "main a[rel=next]" };

/** [ and ] go to what comes before and after, as the links do, unless somebody types. */
export function useWayKeys() {
  useEffect(() => {
    const heard = (event) => {
      const { key, target, ctrlKey, altKey, metaKey, defaultPrevented } = event;
      if (!KEYS[key] || defaultPrevented || ctrlKey || altKey || metaKey || target.closest?.(TYPED)) return;
      document.querySelector(KEYS[key])?.click();
      event.preventDefault();
    };
    addEventListener("keydown", heard);
    return () => removeEventListener("keydown", heard);
  }, []);
}
