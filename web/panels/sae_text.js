import { useEffect, useState } from "preact/hooks";

/** The text of a file that the studio gives away; null until it is here, and where there is no such file. */
export function useText(path, state) {
  const [text, setText] = useState(null);
  useEffect(() => {
    if (!path) return setText(null);
    let wanted = true;
    const tell = (found) => wanted && setText(found);
    fetch(path, { cache: "no-store" }).then((answer) => (answer.ok ? answer.text() : null)).then(tell, () => tell(null));
    return () => (wanted = false);
  }, [path, state]);
  return text;
}
