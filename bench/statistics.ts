// Medians and quartiles: what a few outliers of a shared machine cannot move.

/** The value below which a share `q` of the values lies, linearly between neighbours. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const below = Math.floor(at);
  const low = sorted[below] ?? Number.NaN;
  return low + ((sorted[below + 1] ?? low) - low) * (at - below);
}

export interface Spread {
  /** First quartile. */
  low: number;
  median: number;
  /** Third quartile. */
  high: number;
}

export function spread(values: readonly number[]): Spread {
  return { low: quantile(values, 0.25), median: quantile(values, 0.5), high: quantile(values, 0.75) };
}
