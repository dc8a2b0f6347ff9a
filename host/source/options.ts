// What may be asked of a source, checked before anybody is disturbed.

import { KEY_BYTES, MAX_VMS } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { requireInteger } from '../../bindings/options.js';
import { MAX_REPLICAS } from '../wire/messages.js';
import type { EjectOptions } from './source.js';

/** Everything goes straight to the destination: no node keeps anything. */
export function isDirect({ direct, park, intermediates }: EjectOptions): boolean {
  return direct === true || (park === undefined && intermediates.length === 0);
}

/** @throws {AbdmError} USAGE that says what does not fit. */
export function checkOptions(options: EjectOptions): void {
  const { vms, to, park, vmKey, intermediates, replicas = 1 } = options;
  requireInteger('vms', vms.length, 1, MAX_VMS);
  requireInteger('replicas', replicas, 1, MAX_REPLICAS);
  if ((to === undefined) === (park === undefined)) throw bad('it goes to a destination, or is parked: one of the two');
  if (park && !vmKey) throw bad('a parked VM needs a key of its own, or nobody could ever read it');
  if (vmKey && vmKey.byteLength !== KEY_BYTES)
    throw bad(`its key has ${vmKey.byteLength} bytes: it needs ${KEY_BYTES}`);
  if (isDirect(options)) {
    if (park) throw bad('parked, it cannot go straight to a destination');
    if (intermediates !== 'announced' && intermediates.length > 0)
      throw bad('straight to the destination, it uses no nodes');
    return;
  }
  if (intermediates === 'announced') return;
  const listed = new Set(intermediates).size;
  if (listed < replicas) {
    throw bad(
      `${replicas} copies of each frame need as many different nodes, and ${listed} are named: name more, or ask for fewer`,
    );
  }
}

function bad(text: string): AbdmError {
  return new AbdmError('USAGE', text);
}
