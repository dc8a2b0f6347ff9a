// IMAGES, checked: what a source says that it will send. Every length is held against its limit before anything is allocated for it.

import { KEY_BYTES, MAX_NODES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { readVms, type VmShape } from '../mam/catalog.js';
import { decodeJson, need } from '../wire/json.js';
import { MessageType, maxBodyBytes } from '../wire/messages.js';

/** A VM that a source will send: its name and its size. */
export type AnnouncedVm = VmShape;

export interface Announced {
  direct: boolean;
  key: Uint8Array;
  vms: AnnouncedVm[];
  nodes: string[];
  elapsedMs: number;
}

const WHAT = 'IMAGES';

/** @throws {AbdmError} PROTOCOL that names the field. */
export function readAnnouncement(body: Uint8Array): Announced {
  const from = decodeJson(body, WHAT, maxBodyBytes(MessageType.IMAGES));
  need.oneOf(from, 'mode', WHAT, ['stop']);
  const key = Buffer.from(need.string(from, 'key', WHAT, KEY_BYTES * 2), 'hex');
  if (key.length !== KEY_BYTES) throw bad('`key` is not the hex of 32 bytes');
  const vms = readVms(from, WHAT);
  const nodes = need.list(from, 'nodes', WHAT, MAX_NODES, (item) => {
    if (typeof item !== 'string' || item.length > 256) throw bad('an item of `nodes` is not an address');
    return item;
  });
  const direct = need.boolean(from, 'direct', WHAT);
  if (direct !== (nodes.length === 0)) throw bad('`direct` goes without `nodes`, and the other way round');
  const elapsedMs = from.elapsedMs;
  if (typeof elapsedMs !== 'number' || !(elapsedMs >= 0 && elapsedMs < 1e12)) throw bad('`elapsedMs` is not a time');
  return { direct, key: new Uint8Array(key), vms, nodes, elapsedMs };
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
