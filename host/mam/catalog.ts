// What the nodes keep beside the frames, so that whoever has the migration's key finds everything without the source: the manifest, which says what
// left, and records, which say what each frame holds and where it lies. All of it travels and lies in sealed blocks (seal.ts); here are their bodies.
//
// Manifest, part i of n, in the block MANIFEST_ID + i:
//
//    0  u32 parts n
//    4  a piece of the UTF-8 of { protocol, migration, sealed, replicas, vms: [ { name, bytes, pages, regions, setup? } ] }
//
// Records, in the blocks RECORDS_ID, RECORDS_ID + 1, ...; each block stands for itself:
//
//    0  u16 nodes n
//    2  n x { u8 address bytes | node id, 16 bytes | address, UTF-8 }
//       records (wire/records.ts), kept or void; their node indexes refer to this list. A kept one without nodes is of a frame that went straight to
//       the destination, and is followed by what stands before that frame's payload, by which its pages can be told again: u32 bytes | meta
//
// The execution state of VM v, part i of n, in the block STATE_ID + v * 2^16 + i:
//
//    0  u32 parts n
//    4  a piece of it

import { FRAME_PAGES, MAX_FRAME_BYTES, MAX_GANG_PAGES, MAX_VMS, PAGE_BYTES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { decodeJson, encodeJson, need } from '../wire/json.js';
import { MAX_REPLICAS, PROTOCOL_VERSION } from '../wire/messages.js';
import { type FrameRecord, RecordReader, RecordWriter } from '../wire/records.js';
import type { NodeRef } from './keeper.js';

/** The block of the manifest's first part. */
export const MANIFEST_ID = 2 ** 48;
/** The first block of records. */
export const RECORDS_ID = 2 ** 49;
/** The first block of the execution state of VM 0. */
export const STATE_ID = 2 ** 50;
/** Where the blocks of one VM's execution state end, and those of the next one begin. */
const STATE_IDS = 2 ** 16;
/** Bytes of an index block's body, at most: with its seal it is no longer than a frame may be. */
export const MAX_BODY_BYTES = MAX_FRAME_BYTES;
/** Nodes that one block of records can name. */
export const MAX_BLOCK_NODES = 256;
/** The manifest is at most as long as IMAGES. */
const MAX_MANIFEST_BYTES = 8 * 1024 * 1024;
/** A piece of the manifest or of an execution state. */
const PART_BYTES = 256_000;
/** An execution state is at most so long. */
export const MAX_STATE_BYTES = 64 * 1024 * 1024;
const MAX_REGIONS = 65_536;
const MAX_SETUP_LENGTH = 4096;
/** What stands before a frame's payload, at most: header, page table, content ids, references, tag. */
const MAX_META_BYTES = 40 + FRAME_PAGES * (8 + 16 + 8) + 16;
const NODE_ID_BYTES = 16;

/** A VM that leaves: its name and its size. */
export interface VmShape {
  name: string;
  bytes: number;
  pages: number;
  regions: { name: string; address: number; bytes: number }[];
  /** What a place for it has to know besides: see ImageSource. */
  setup?: string;
  /** It is a guest: its execution state leaves too, and it runs elsewhere. */
  guest?: true;
}

/** What left, as the nodes keep it. */
export interface Manifest {
  migration: string;
  /** Frames lie in sealed blocks. */
  sealed: boolean;
  /** How many nodes keep each frame. */
  replicas: number;
  vms: VmShape[];
}

/** The bodies of the manifest's blocks, from MANIFEST_ID on. @throws {AbdmError} IMAGE if the images have too many regions. */
export function encodeManifest(manifest: Manifest): Uint8Array[] {
  const json = encodeJson({ protocol: PROTOCOL_VERSION, ...manifest });
  if (json.byteLength > MAX_MANIFEST_BYTES) {
    const text = `a manifest of ${json.byteLength} bytes, ${MAX_MANIFEST_BYTES} are allowed: the images have too many regions`;
    throw new AbdmError('IMAGE', text);
  }
  return Array.from({ length: partsOf(json) }, (_, i) => partOf(json, i));
}

/** How many parts the manifest has, of which `body` is one. @throws {AbdmError} PROTOCOL. */
export function manifestParts(body: Uint8Array): number {
  return readParts(body, 'manifest', MAX_MANIFEST_BYTES);
}

/** How many blocks bytes are cut into. */
export function partsOf(bytes: Uint8Array): number {
  return Math.ceil(bytes.byteLength / PART_BYTES);
}

/** The body of block `i` of these. */
export function partOf(bytes: Uint8Array, i: number): Uint8Array {
  const piece = bytes.subarray(i * PART_BYTES, (i + 1) * PART_BYTES);
  const body = new Uint8Array(4 + piece.byteLength);
  new DataView(body.buffer).setUint32(0, partsOf(bytes), true);
  body.set(piece, 4);
  return body;
}

function readParts(body: Uint8Array, what: string, maxBytes: number): number {
  const parts = body.byteLength > 4 ? new DataView(body.buffer, body.byteOffset).getUint32(0, true) : 0;
  if (parts < 1 || parts > Math.ceil(maxBytes / PART_BYTES)) throw bad(what, `${parts} parts`);
  return parts;
}

/** The blocks that the execution state of a VM may be in: from the first, up to before the second. */
export function stateIds(vm: number): [number, number] {
  const first = STATE_ID + vm * STATE_IDS;
  return [first, first + Math.ceil(MAX_STATE_BYTES / PART_BYTES)];
}

/** How many parts an execution state has, of which `body` is one. @throws {AbdmError} PROTOCOL. */
export function stateParts(body: Uint8Array): number {
  return readParts(body, 'execution state', MAX_STATE_BYTES);
}

/** An execution state from the bodies of all of its blocks, in order. @throws {AbdmError} PROTOCOL. */
export function decodeState(bodies: readonly Uint8Array[]): Uint8Array {
  if (bodies.some((body) => stateParts(body) !== bodies.length)) {
    throw bad('execution state', 'its parts do not belong together');
  }
  const bytes = bodies.reduce((sum, body) => sum + body.byteLength - 4, 0);
  if (bytes > MAX_STATE_BYTES) throw bad('execution state', `${bytes} bytes, ${MAX_STATE_BYTES} are allowed`);
  const state = new Uint8Array(bytes);
  let at = 0;
  for (const body of bodies) {
    state.set(body.subarray(4), at);
    at += body.byteLength - 4;
  }
  return state;
}

/** The manifest from the bodies of all of its blocks, in order. @throws {AbdmError} PROTOCOL that names the field. */
export function decodeManifest(bodies: readonly Uint8Array[]): Manifest {
  for (const body of bodies) {
    if (manifestParts(body) !== bodies.length) throw bad('manifest', 'its parts do not belong together');
  }
  const json = Buffer.concat(bodies.map((body) => body.subarray(4)));
  const from = decodeJson(json, 'manifest', MAX_MANIFEST_BYTES);
  need.integer(from, 'protocol', 'manifest', PROTOCOL_VERSION, PROTOCOL_VERSION);
  return {
    migration: need.string(from, 'migration', 'manifest', 32),
    sealed: need.boolean(from, 'sealed', 'manifest'),
    replicas: need.integer(from, 'replicas', 'manifest', 1, MAX_REPLICAS),
    vms: readVms(from, 'manifest'),
  };
}

/** The list `vms` of a manifest, or of IMAGES. @throws {AbdmError} PROTOCOL that names the field. */
export function readVms(from: Parameters<typeof need.list>[0], what: string): VmShape[] {
  const vms = need.list(from, 'vms', what, MAX_VMS, (item) => readVm(item, what));
  if (vms.length === 0) throw bad(what, '`vms` is empty');
  if (new Set(vms.map(({ name }) => name)).size !== vms.length) throw bad(what, 'two of `vms` have the same name');
  if (vms.reduce((sum, { pages }) => sum + pages, 0) > MAX_GANG_PAGES) {
    throw bad(what, `more than ${MAX_GANG_PAGES} pages`);
  }
  return vms;
}

function readVm(item: unknown, what: string): VmShape {
  const vm = need.isObject(item, what, 'vms');
  const pages = need.integer(vm, 'pages', what, 0, MAX_GANG_PAGES);
  const bytes = need.integer(vm, 'bytes', what, 0, pages * PAGE_BYTES);
  if (Math.ceil(bytes / PAGE_BYTES) !== pages) throw bad(what, '`bytes` and `pages` of a VM do not fit each other');
  const regions = need.list(vm, 'regions', what, MAX_REGIONS, (entry) => {
    const region = need.isObject(entry, what, 'regions');
    return {
      name: need.string(region, 'name', what, 4096),
      address: need.integer(region, 'address', what),
      bytes: need.integer(region, 'bytes', what),
    };
  });
  const isGuest = Object.hasOwn(vm, 'guest') && need.boolean(vm, 'guest', what);
  const shape: VmShape = { name: need.string(vm, 'name', what, 64), bytes, pages, regions };
  if (isGuest) shape.guest = true;
  if (Object.hasOwn(vm, 'setup')) shape.setup = need.string(vm, 'setup', what, MAX_SETUP_LENGTH);
  return shape;
}

/** What a frame's record says, for the writer. */
export interface WrittenRecord {
  frameId: number;
  frameBytes: number;
  vm: number;
  /** Ascending, within 65,536 of the first; `pages` of them, or all. */
  pfns: ArrayLike<number>;
  pages?: number;
  /** Its holders, best first; none: it never comes, or it went straight to the destination, and `meta` is needed. */
  nodes: readonly NodeRef[];
  /** Everything before the frame's payload, as it was divided. */
  meta?: Uint8Array;
  /** It never comes, and its pages do in later frames. */
  isVoid?: boolean;
}

/** Collects records for one block. */
export class RecordsWriter {
  readonly #one = new RecordWriter(512);
  readonly #nodes = new Map<string, { index: number; piece: Uint8Array }>();
  readonly #pieces: Uint8Array[] = [];
  #bytes = 2;
  #records = 0;

  /** Records in the block so far. */
  get records(): number {
    return this.#records;
  }

  /** Adds a record; false, and nothing is added, if there is no room for it: take what is there first. */
  add({ frameId, frameBytes, vm, pfns, pages = pfns.length, nodes, meta, isVoid = false }: WrittenRecord): boolean {
    if ((nodes.length === 0 && !isVoid) !== (meta !== undefined)) {
      throw new RangeError(`frame ${frameId}: meta goes without nodes`);
    }
    const fresh = nodes
      .filter(({ id }) => !this.#nodes.has(id))
      .map((node) => ({ id: node.id, piece: nodePiece(node) }));
    const metaBytes = meta ? 4 + meta.byteLength : 0;
    const most = 25 + nodes.length + 2 * pages + metaBytes + fresh.reduce((sum, { piece }) => sum + piece.length, 0);
    if (this.#bytes + most > MAX_BODY_BYTES || this.#nodes.size + fresh.length > MAX_BLOCK_NODES) return false;
    for (const { id, piece } of fresh) {
      this.#nodes.set(id, { index: this.#nodes.size, piece });
      this.#bytes += piece.byteLength;
    }
    this.#one.add(
      frameId,
      frameBytes,
      vm,
      nodes.map(({ id }) => this.#nodes.get(id)!.index),
      pfns,
      pages,
      0,
      isVoid ? 'void' : 'kept',
    );
    this.#push(this.#one.take());
    if (meta) {
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, meta.byteLength, true);
      this.#push(length);
      this.#push(meta.slice());
    }
    this.#records++;
    return true;
  }

  /** The block's body, and starts anew. */
  take(): Uint8Array {
    const head = new Uint8Array(2);
    new DataView(head.buffer).setUint16(0, this.#nodes.size, true);
    const body = Buffer.concat([head, ...[...this.#nodes.values()].map(({ piece }) => piece), ...this.#pieces]);
    this.#nodes.clear();
    this.#pieces.length = 0;
    this.#bytes = 2;
    this.#records = 0;
    return new Uint8Array(body);
  }

  #push(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.#bytes += piece.byteLength;
  }
}

function nodePiece({ id, address }: NodeRef): Uint8Array {
  const text = Buffer.from(address);
  const raw = Buffer.from(id, 'hex');
  if (raw.length !== NODE_ID_BYTES || text.length > 255) throw new RangeError(`node ${id} at ${address}`);
  return Buffer.concat([Buffer.of(text.length), raw, text]);
}

/**
 * Reads a block of records; `onRecord` gets each, with its holders, and the meta part of a frame that went straight to the destination. The record is
 * reused: take what you need.
 * @throws {AbdmError} PROTOCOL at the first thing that is cut short, impossible, or outside the images.
 */
export function readRecords(
  body: Uint8Array,
  vms: readonly { pages: number }[],
  onRecord: (record: FrameRecord, holders: NodeRef[], meta: Uint8Array | null) => void,
): void {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const nodes: NodeRef[] = [];
  const need = (end: number) => {
    if (end > body.byteLength) throw bad('records', 'the block is cut short');
    return end;
  };
  let at = need(2);
  const count = view.getUint16(0, true);
  if (count > MAX_BLOCK_NODES) throw bad('records', `${count} nodes`);
  for (let i = 0; i < count; i++) {
    const from = need(at + 1 + NODE_ID_BYTES);
    const end = need(from + view.getUint8(at));
    const id = Buffer.from(body.subarray(at + 1, from)).toString('hex');
    nodes.push({ id, address: Buffer.from(body.subarray(from, end)).toString() });
    at = end;
  }
  const reader = new RecordReader({ nodes: nodes.length, vms: vms.length, imagePages: (vm) => vms[vm]!.pages });
  while (at < body.byteLength) {
    const { record, end } = reader.readOne(body, at);
    at = end;
    let meta: Uint8Array | null = null;
    if (record.state === 'coming') throw bad('records', `frame ${record.frameId} is on its way, as nobody says here`);
    if (record.nodes === 0 && record.state === 'kept') {
      const from = need(at + 4);
      const bytes = view.getUint32(at, true);
      if (bytes > MAX_META_BYTES) throw bad('records', `a meta part of ${bytes} bytes`);
      at = need(from + bytes);
      meta = body.subarray(from, at);
    }
    const holders = Array.from(record.nodeIndexes.subarray(0, record.nodes), (index) => nodes[index]!);
    onRecord(record, holders, meta);
  }
}

function bad(what: string, text: string): AbdmError {
  return new AbdmError('PROTOCOL', `${what}: ${text}`);
}
