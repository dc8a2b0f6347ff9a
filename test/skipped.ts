// A test that cannot run here is skipped, visibly and with its reason.

/** Why a test cannot run here; in CI, where everything must, that is a failure. */
export function skipped(skip: (note: string) => void, reason: string): void {
  if (process.env.CI) throw new Error(`${reason}: in CI nothing is skipped`);
  console.warn(`skipped: ${reason}`);
  skip(reason);
}
