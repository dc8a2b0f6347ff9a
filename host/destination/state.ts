// What a destination notes beside each image, in PATH.abdm, so that it can be killed at any moment and started again with the same command: which
// migration it is, the secrets that open and claim it, and where its nodes are. It is written before the source is told to begin, and removed
// when the migration is over; for its owner only, since whoever reads it can read the VM.

import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { KEY_BYTES, MAX_NODES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { errnoOf, imageError, reasonOf } from '../image/image.js';
import { statOf } from '../image/proc.js';
import { decodeNodeRef, isNodeId, MAX_VOTERS } from '../mam/bodies.js';
import { readVms, type VmShape } from '../mam/catalog.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Mode } from '../summary.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';

export const MODES: readonly Mode[] = ['auto', 'stop', 'pre-copy', 'post-copy', 'hybrid'];

/**
 *   open      it is coming
 *   running   its guest was told to run, or is about to be: it is ours, and never the source's again
 *   refused   it never runs here: the source has it, or was told that it may
 *   done      its image has its name, while others of its gang have not
 */
export type Fate = 'open' | 'running' | 'refused' | 'done';

/** What is needed to go on with one VM. */
export interface VmNote {
  /** The guest that takes it in; null if it is none. */
  guest: string | null;
  fate: Fate;
}

/** What is needed to go on. */
export interface State {
  /** How often it was changed. */
  sequence: number;
  migration: string;
  /** The migration's secret. */
  key: Uint8Array;
  /** By which this destination claims the VMs. */
  token: string;
  nodes: NodeRef[];
  /** Those of them that decide who gets the VMs, as far as they are known. */
  voters: NodeRef[];
  vms: VmShape[];
  /** By VM. */
  notes: VmNote[];
  /** As it was announced; null if nobody said: it was parked. */
  mode: Mode | null;
  /** Frames lie in sealed blocks. */
  sealed: boolean;
  /** Frames came straight from the source: they are nowhere else than in PATH.partial. */
  direct: boolean;
  /** How many frames there are, if the source has left; until then null. */
  frames: number | null;
  /** When the migration began, by this host's clock. */
  beganAtMs: number;
  /** It waited at the nodes for whoever comes. */
  parked: boolean;
}

const MAX_BYTES = 16 * 1024 * 1024;
/** Files of destinations that are at work in this process. */
const ours = new Set<string>();

/**
 * Writes the state beside every image; each file is whole at any moment. Where one of several images has no room left, those beside the others have the last
 * word.
 * @throws {AbdmError} IMAGE if it is written nowhere.
 */
export function writeState(paths: readonly string[], state: State): void {
  const owner = { pid: process.pid, started: startOf(process.pid) };
  const body = encodeJson({ ...state, key: Buffer.from(state.key).toString('hex'), ...owner });
  const failures: AbdmError[] = [];
  for (const path of paths) {
    try {
      const fd = openSync(`${path}.new`, 'w', 0o600);
      try {
        writeSync(fd, body);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(`${path}.new`, path);
      ours.add(path);
    } catch (error) {
      failures.push(imageError(`cannot write ${path}: ${reasonOf(error)}`, 'check its file system', error));
    }
  }
  if (failures.length > 0 && failures.length === paths.length) throw failures[0]!;
}

/** Leaves it to whoever is started with the same images next. */
export function leaveState(paths: readonly string[]): void {
  for (const path of paths) ours.delete(path);
}

/** Removes it. */
export function removeState(paths: readonly string[]): void {
  leaveState(paths);
  for (const path of paths) {
    rmSync(path, { force: true });
    rmSync(`${path}.new`, { force: true });
  }
}

/**
 * What an earlier destination of the same images has left, or null.
 * @throws {AbdmError} IMAGE if one of them is at work, or if what they left is of no use.
 */
export function readState(paths: readonly string[]): State | null {
  const states = paths.flatMap((path) => {
    const state = readOne(path);
    return state ? [state] : [];
  });
  const [first, ...others] = states.sort((a, b) => b.sequence - a.sequence);
  if (others.some(({ migration }) => migration !== first!.migration)) {
    const what = `${paths.join(', ')} are of different migrations`;
    throw imageError(what, 'name the images that belong together, as before');
  }
  return first ?? null;
}

function readOne(path: string): State | null {
  let body: Uint8Array;
  try {
    body = readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw imageError(`cannot read ${path}: ${reasonOf(error)}`, 'it says what an earlier abdm merge was doing', error);
  }
  try {
    const from = decodeJson(body, path, MAX_BYTES);
    const pid = need.integer(from, 'pid', path, 1);
    const started = need.string(from, 'started', path);
    if (pid === process.pid && started === startOf(pid) ? ours.has(path) : isAlive(pid, started)) {
      throw imageError(`${path}: process ${pid} is at work on this image`, 'wait for it, or end it first');
    }
    const key = Buffer.from(need.string(from, 'key', path, 2 * KEY_BYTES), 'hex');
    if (key.length !== KEY_BYTES) throw new AbdmError('PROTOCOL', `${path}: \`key\` is not the hex of 32 bytes`);
    const vms = readVms(from, path);
    const notes = need.list(from, 'notes', path, vms.length, (item) => readNote(item, path));
    if (notes.length !== vms.length) throw new AbdmError('PROTOCOL', `${path}: \`notes\` are not of all VMs`);
    return {
      sequence: need.integer(from, 'sequence', path),
      migration: need.string(from, 'migration', path, 32),
      key: new Uint8Array(key),
      token: need.string(from, 'token', path, 32),
      nodes: need.list(from, 'nodes', path, MAX_NODES, (item) => decodeNodeRef(item, path)),
      voters: need.list(from, 'voters', path, MAX_VOTERS, (item) => decodeNodeRef(item, path)),
      vms,
      notes,
      mode: from.mode === null ? null : need.oneOf(from, 'mode', path, MODES),
      sealed: need.boolean(from, 'sealed', path),
      direct: need.boolean(from, 'direct', path),
      frames: from.frames === null ? null : need.integer(from, 'frames', path),
      beganAtMs: need.integer(from, 'beganAtMs', path),
      parked: need.boolean(from, 'parked', path),
    };
  } catch (error) {
    if (!(error instanceof AbdmError) || error.code !== 'PROTOCOL') throw error;
    const hint = 'it says what an earlier abdm merge was doing; remove it if that does not matter any more';
    throw imageError(error.message, hint, error);
  }
}

function readNote(item: unknown, path: string): VmNote {
  const from = need.isObject(item, path, 'notes');
  const guest = from.guest === null ? null : need.string(from, 'guest', path, 32);
  if (guest !== null && !isNodeId(guest)) throw new AbdmError('PROTOCOL', `${path}: \`guest\` is not 32 hex digits`);
  return { guest, fate: need.oneOf(from, 'fate', path, ['open', 'running', 'refused', 'done']) };
}

/** When a process began, in the system's own words; '' where that cannot be told, or if it has ended. */
function startOf(pid: number): string {
  try {
    const { state, startTime } = statOf(pid);
    return 'ZX'.includes(state) ? '' : startTime;
  } catch {
    return '';
  }
}

/** A pid is given to others in time: only with the same start it is the same process. */
function isAlive(pid: number, started: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
  }
  return startOf(pid) === started;
}
