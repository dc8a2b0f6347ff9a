// Whether a guest can leave at all, as far as QEMU says before anything is touched. What only shows in its stream is found when that begins, while
// the guest runs (see migration.ts).

import type { AbdmError } from '../../../bindings/errors.js';
import { blockedReasons, capabilities, migrationState, parameters, runState } from '../../qemu/monitor.js';
import type { QmpClient } from '../../qemu/qmp.js';
import { printable } from '../../wire/json.js';
import { imageError } from '../image.js';

/** Standing still, it leaves as well. */
const GOOD_STATES = ['running', 'paused', 'prelaunch'];
const STATE_HINTS: Readonly<Record<string, string>> = {
  inmigrate: 'it waits for a guest itself: name the QEMU that the guest runs in',
  postmigrate: "it has migrated already; only if it does not run elsewhere, let it go on ('cont' in its monitor)",
  'finish-migrate': 'it is migrating; wait for that to end',
  shutdown: 'the guest has been powered off: there is nothing to move',
  suspended: "wake it up ('system_wakeup' in its monitor)",
  'io-error': "mend its disk, and let it go on ('cont' in its monitor)",
};

const IDLE = ['none', 'completed', 'failed', 'cancelled'];

/** Each makes another stream of it, or another end. */
const IN_THE_WAY: Readonly<Record<string, string>> = {
  multifd: 'pages come on other connections',
  compress: 'pages come in a form of its own',
  xbzrle: 'pages come as differences',
  'zero-copy-send': 'it sends on other connections',
  'mapped-ram': 'it writes to a file',
  'x-ignore-shared': 'shared memory does not come',
  'rdma-pin-all': 'it is for RDMA',
  'x-colo': 'the guest would not leave',
  block: 'disks come along',
  'dirty-bitmaps': 'bitmaps of disks come along',
  'background-snapshot': 'the guest would not leave',
  'postcopy-preempt': 'pages come on two connections',
  'release-ram': 'memory is freed before it is safe elsewhere',
  'pause-before-switchover': 'it waits for a command before the guest leaves',
  'switchover-ack': "it waits for the destination's devices before the guest leaves",
};

/** @throws {AbdmError} IMAGE that names what is in the way, and says what to do. */
export async function examine(qmp: QmpClient, description: string): Promise<void> {
  const refuse = (what: string, hint: string): AbdmError => imageError(`${description} ${what}`, hint);
  const migration = await migrationState(qmp);
  if (!IDLE.includes(migration.status)) {
    const hint = "wait for it to end, or end it ('migrate_cancel' in its monitor)";
    throw refuse(`has a migration under way already: it is ${printable(migration.status)}`, hint);
  }
  const { status } = await runState(qmp);
  if (!GOOD_STATES.includes(status)) {
    const hint = Object.hasOwn(STATE_HINTS, status)
      ? STATE_HINTS[status]!
      : 'only a guest that runs, or is paused, can leave';
    throw refuse(`is in the state ${printable(status)}`, hint);
  }
  const [reason, ...others] = await blockedReasons(qmp);
  if (reason !== undefined) {
    const more = others.length > 0 ? ` (and ${others.length} reasons more)` : '';
    throw refuse(`cannot migrate: ${printable(reason)}${more}`, 'remove that from the guest');
  }
  const known = await capabilities(qmp);
  for (const name of ['return-path', 'postcopy-ram']) {
    if (!known.has(name)) throw refuse(`does not know the capability ${name}`, 'use QEMU 7.2 or later, on Linux');
  }
  for (const [name, why] of Object.entries(IN_THE_WAY)) {
    if (!known.get(name)) continue;
    throw refuse(
      `has the capability ${name} on: ${why}`,
      `turn it off ('migrate_set_capability ${name} off' in its monitor)`,
    );
  }
  const { 'tls-creds': tls, mode } = await parameters(qmp);
  if (tls)
    throw refuse(
      'has TLS credentials for migrations (tls-creds)',
      "set that to '' : all stays on this host, until abdm sends it on",
    );
  if (mode !== undefined && mode !== 'normal') {
    throw refuse(`has the migration mode ${printable(String(mode))}`, "set the parameter 'mode' to normal");
  }
}
