// The images that stand on a command line.

import { AbdmError } from '../../bindings/errors.js';
import { type ImageSpec, parseImage } from '../image/parse.js';

/** @throws {AbdmError} USAGE if one is none, or two have the same name. */
export function parseImages(names: readonly string[]): ImageSpec[] {
  const specs = names.map(parseImage);
  const twice = specs.find(({ name }, i) => specs.findIndex((other) => other.name === name) !== i);
  if (twice) throw new AbdmError('USAGE', `two images are named ${twice.name}`);
  return specs;
}

/** Where the secret of parked VMs is, unless something else is said. */
export function defaultVmKey([first]: readonly string[]): string {
  return `${first}.vmkey`;
}
