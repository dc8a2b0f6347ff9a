import { AbdmError } from './errors.js';

/** Throws USAGE, naming the option, if `value` is not an integer in [least, most]. */
export function requireInteger(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new AbdmError('USAGE', `${name} is ${value}: it must be an integer from ${least} to ${most}`);
  }
}
