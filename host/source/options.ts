// What may be asked of a source, checked before anybody is disturbed.

import { KEY_BYTES, MAX_VMS } from '../../bindings/abi.js';
import type { Compression } from '../../bindings/divider.js';
import { AbdmError } from '../../bindings/errors.js';
import { requireInteger } from '../../bindings/options.js';
import { type ImageSource, isGuestSource, isSending } from '../image/image.js';
import type { Mode, Notice } from '../summary.js';
import { storeScheme } from '../wire/address.js';
import { MAX_REPLICAS } from '../wire/messages.js';
import type { Security } from '../wire/security.js';

/** What leaves, and where to. */
export interface EjectOptions {
  vms: readonly {
    name: string;
    image: ImageSource;
    /** Its share of the link, relative to the others'. Default 1. */
    priority?: number;
  }[];
  /** HOST:PORT of the destination. */
  to?: string;
  /** Instead of a destination: everything stays at the nodes until somebody claims it, or the lease runs out. */
  park?: { leaseMs: number };
  /** The key of parked VMs, 32 bytes: who has it can read them. */
  vmKey?: Uint8Array;
  /** HOST:PORT of each intermediate, and the address of each store (parseStore), or whoever announces itself; empty: frames go straight to the destination. */
  intermediates: readonly string[] | 'announced';
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  /** Frames go straight to the destination, and nowhere else. */
  direct?: boolean;
  /** How guests leave. Default auto; what is no guest just stops. */
  mode?: Mode;
  /** Pre-copy stops a guest when the rest takes no longer than this, in milliseconds. Default 300. */
  maxDowntimeMs?: number;
  /** Rounds of pre-copy, at most (default 30), or of hybrid (default 1). */
  rounds?: number;
  /** Copies of each frame. Default 1. */
  replicas?: number;
  security?: Security;
  /** Default lz4. */
  compress?: Compression;
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  /** How long the destination may take to answer, in milliseconds. Default 30,000. */
  answerMs?: number;
  /** Called with what the operator should know, once. */
  onNotice?: (notice: Notice) => void;
}

/** Modes in which a guest runs at the destination before all its pages were sent. */
const EARLY: ReadonlySet<Mode> = new Set(['auto', 'post-copy', 'hybrid']);
/** Modes in which it runs here for a while. */
const ROUNDS: ReadonlySet<Mode> = new Set(['auto', 'pre-copy', 'hybrid']);
export const MAX_ROUNDS = 1_000;
export const MAX_PRIORITY = 1_000;

/** How its guests leave. */
export function modeOf({ mode, vms }: EjectOptions): Mode {
  return mode ?? (vms.some(({ image }) => isGuestSource(image)) ? 'auto' : 'stop');
}

/** A guest may run at the destination, and write to its memory, while frames still come there: its own, or those of others that leave with it. */
export function isLive(options: EjectOptions): boolean {
  const { to, vms } = options;
  if (to === undefined || !vms.some(({ image }) => isGuestSource(image))) return false;
  // What such a guest is taken in by cannot be read back, whether it runs or not.
  if (vms.some(({ image }) => isGuestSource(image) && isSending(image))) return true;
  return modeOf(options) !== 'stop' || vms.length > 1;
}

/**
 * Frames may go straight to the destination. In mode stop a guest runs there only when all of it is there, long after the exit perhaps; one that sends its memory
 * itself goes to a guest that keeps nothing if it dies before that, as QEMU does: then all of it is to be at nodes.
 */
export function takesStraight(options: EjectOptions): boolean {
  if (isDirect(options) || modeOf(options) !== 'stop') return true;
  return !options.vms.some(({ image }) => isGuestSource(image) && isSending(image));
}

/** Frames are short: a guest may wait for one. */
export function isShort(options: EjectOptions): boolean {
  return isLive(options) && EARLY.has(modeOf(options));
}

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
  checkMode(options);
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
  // A store may make copies by itself.
  if (listed < replicas && !intermediates.some((address) => storeScheme(address) !== null)) {
    throw bad(
      `${replicas} copies of each frame need as many different nodes, and ${listed} are named: name more, or ask for fewer`,
    );
  }
}

function checkMode(options: EjectOptions): void {
  const { vms, park, maxDowntimeMs, rounds } = options;
  const mode = modeOf(options);
  for (const { name, image, priority = 1 } of vms) {
    if (mode !== 'stop' && mode !== 'auto' && !isGuestSource(image)) {
      throw bad(`${name} is no guest, and stands still while it leaves: it has no mode but stop`);
    }
    if (!(priority > 0 && priority <= MAX_PRIORITY)) {
      throw bad(`the priority of ${name} is ${priority}: it must be above 0, and ${MAX_PRIORITY} at most`);
    }
  }
  if (park && (mode === 'post-copy' || mode === 'hybrid')) {
    throw bad(`${mode} runs a guest at the destination while its pages follow: parked, there is none`);
  }
  if (rounds !== undefined) requireInteger('rounds', rounds, 1, MAX_ROUNDS);
  if (rounds !== undefined && !ROUNDS.has(mode)) throw bad(`rounds are for auto, pre-copy and hybrid, not for ${mode}`);
  if (maxDowntimeMs === undefined) return;
  if (!(maxDowntimeMs > 0)) throw bad(`a downtime of ${maxDowntimeMs} ms is too short`);
  if (mode !== 'auto' && mode !== 'pre-copy') throw bad(`a longest downtime is for auto and pre-copy, not for ${mode}`);
}

function bad(text: string): AbdmError {
  return new AbdmError('USAGE', text);
}
