// IMAGES and NODES, checked: what a source says that it will send, and where it will be. Every length is held against its limit before anything is
// allocated for it.

import { KEY_BYTES, MAX_NODES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { decodeNodeRef, isNodeId } from '../mam/bodies.js';
import { readVms, type VmShape } from '../mam/catalog.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Mode } from '../summary.js';
import { decodeJson, type JsonObject, need } from '../wire/json.js';
import { MAX_REPLICAS, MessageType, maxBodyBytes } from '../wire/messages.js';
import { MODES } from './state.js';

/** A VM that a source will send: its name and its size. */
export type AnnouncedVm = VmShape;

export interface Announced {
  mode: Mode;
  direct: boolean;
  key: Uint8Array;
  vms: AnnouncedVm[];
  /** Frames lie in sealed blocks. */
  sealed: boolean;
  /** How many nodes keep each frame. */
  replicas: number;
  /** By which this destination claims the VMs at the nodes, should it have to. */
  token: string;
  nodes: NodeRef[];
  elapsedMs: number;
}

const WHAT = 'IMAGES';

/** @throws {AbdmError} PROTOCOL that names the field. */
export function readAnnouncement(body: Uint8Array): Announced {
  const from = decodeJson(body, WHAT, maxBodyBytes(MessageType.IMAGES));
  const mode = need.oneOf(from, 'mode', WHAT, MODES);
  const key = Buffer.from(need.string(from, 'key', WHAT, KEY_BYTES * 2), 'hex');
  if (key.length !== KEY_BYTES) throw bad('`key` is not the hex of 32 bytes');
  const vms = readVms(from, WHAT);
  const nodes = readNodes(from, WHAT);
  const direct = need.boolean(from, 'direct', WHAT);
  if (direct && nodes.length > 0) throw bad('`direct` goes without `nodes`');
  const token = need.string(from, 'token', WHAT, 32);
  if (!isNodeId(token)) throw bad('`token` is not 32 hex digits');
  const elapsedMs = from.elapsedMs;
  if (typeof elapsedMs !== 'number' || !(elapsedMs >= 0 && elapsedMs < 1e12)) throw bad('`elapsedMs` is not a time');
  const sealed = need.boolean(from, 'sealed', WHAT);
  const replicas = need.integer(from, 'replicas', WHAT, 1, MAX_REPLICAS);
  return { mode, direct, key: new Uint8Array(key), vms, sealed, replicas, token, nodes, elapsedMs };
}

/** The body of NODES: more of them. @throws {AbdmError} PROTOCOL that names the field. */
export function readMoreNodes(body: Uint8Array): NodeRef[] {
  return readNodes(decodeJson(body, 'NODES'), 'NODES');
}

function readNodes(from: JsonObject, what: string): NodeRef[] {
  return need.list(from, 'nodes', what, MAX_NODES, (item) => decodeNodeRef(item, what));
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
