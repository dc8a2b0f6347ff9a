// A test that cannot run here is skipped, visibly and with its reason.
import { has } from '../bench/stores/servers.js';

/** Why a test cannot run here; in CI, where everything must, that is a failure. */
export function skipped(skip: (note: string) => void, reason: string): void {
  if (process.env.CI) throw new Error(`${reason}: in CI nothing is skipped`);
  console.warn(`skipped: ${reason}`);
  skip(reason);
}

/** For `skipIf`: whether one of these programs is not here. */
export function missing(...programs: readonly string[]): boolean {
  const absent = programs.filter((program) => !has(program));
  for (const program of absent) skipped(() => {}, `${program} is not installed`);
  return absent.length > 0;
}
