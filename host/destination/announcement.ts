// IMAGES, checked: what a source says that it will send. Every length is held against its limit before anything is allocated for it.

import { KEY_BYTES, MAX_GANG_PAGES, MAX_NODES, MAX_VMS, PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, need } from '../wire/json.js';
import { MessageType, maxBodyBytes } from '../wire/messages.js';

export interface AnnouncedVm {
  name: string;
  bytes: number;
  pages: number;
  regions: { name: string; address: number; bytes: number }[];
}

export interface Announced {
  direct: boolean;
  key: Uint8Array;
  vms: AnnouncedVm[];
  nodes: string[];
  elapsedMs: number;
}

const WHAT = 'IMAGES';
const MAX_REGIONS = 65_536;

/** @throws {AbdmError} PROTOCOL that names the field. */
export function readAnnouncement(body: Uint8Array): Announced {
  const from = decodeJson(body, WHAT, maxBodyBytes(MessageType.IMAGES));
  need.oneOf(from, 'mode', WHAT, ['stop']);
  const key = Buffer.from(need.string(from, 'key', WHAT, KEY_BYTES * 2), 'hex');
  if (key.length !== KEY_BYTES) throw bad('`key` is not the hex of 32 bytes');
  const vms = need.list(from, 'vms', WHAT, MAX_VMS, (item) => readVm(item));
  if (vms.length === 0) throw bad('`vms` is empty');
  if (new Set(vms.map(({ name }) => name)).size !== vms.length) throw bad('two of `vms` have the same name');
  if (vms.reduce((sum, { pages }) => sum + pages, 0) > MAX_GANG_PAGES) throw bad(`more than ${MAX_GANG_PAGES} pages`);
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

function readVm(item: unknown): AnnouncedVm {
  const vm = need.isObject(item, WHAT, 'vms');
  const pages = need.integer(vm, 'pages', WHAT, 0, MAX_GANG_PAGES);
  const bytes = need.integer(vm, 'bytes', WHAT, 0, pages * PAGE_BYTES);
  if (Math.ceil(bytes / PAGE_BYTES) !== pages) throw bad('`bytes` and `pages` of a VM do not fit each other');
  const regions = need.list(vm, 'regions', WHAT, MAX_REGIONS, (entry) => {
    const region = need.isObject(entry, WHAT, 'regions');
    return {
      name: need.string(region, 'name', WHAT, 4096),
      address: need.integer(region, 'address', WHAT),
      bytes: need.integer(region, 'bytes', WHAT),
    };
  });
  return { name: need.string(vm, 'name', WHAT, 64), bytes, pages, regions };
}

function bad(text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${WHAT}: ${text}`);
}
