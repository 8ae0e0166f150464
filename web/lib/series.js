// A line of a chart. Pure.

/**
 * A line smoothed: the mean of what came before, in which what is `span` measurements old counts 1/e. It begins at the
 * first measurement, without a bias towards 0.
 */
export function smoothed(values, span) {
  if (span <= 0) return values;
  const keep = Math.exp(-1 / span);
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = keep * sum + value;
    weight = keep * weight + 1;
    return sum / weight;
  });
}
