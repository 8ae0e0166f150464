// How strongly a feature fires, as a shade: the logarithm lets the weak be seen beside the strong. Pure.

const LEAST = 0.06; // of what fires at all
const MOST = 0.45; // text stays readable on it
const LEVELS = 3;

/** The opacity of a token's ground, 0 where the feature does not fire. `most`: the feature's largest activation. */
export function heat(value, most) {
  if (!(value > 0) || !(most > 0)) return 0;
  return LEAST + (MOST - LEAST) * Math.log10(1 + 9 * Math.min(value / most, 1));
}

/** The same in three steps, for those who do not see colours: 0 where it does not fire, 1 to 3 of equal share of `most`. */
export function level(value, most) {
  if (!(value > 0) || !(most > 0)) return 0;
  return Math.min(Math.ceil((LEVELS * value) / most), LEVELS);
}
