import { useEffect, useRef } from "preact/hooks";

/** The `ref` of a field that is focused and selected when it comes, and not whenever what is around it is drawn anew. */
export function focusFirst(field) {
  if (!field || field.dataset.seen) return;
  field.dataset.seen = "yes";
  field.focus();
  field.select();
}

/** The `ref` of a button that opens something in its place: it is focused when that is closed. */
export function useFocusBack(isOpen) {
  const button = useRef(null);
  const was = useRef(isOpen);
  useEffect(() => {
    if (was.current && !isOpen) button.current?.focus();
    was.current = isOpen;
  }, [isOpen]);
  return button;
}
