// Records: what the destination is told of each frame, a few tens of bytes for 64 pages (docs/protocol.md). A RECORDS message carries as
// many as fit. The reader reuses one object with typed arrays: no object per page, none per record.

import { FRAME_PAGES, MAX_VMS } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { MAX_FRAME_BYTES, MAX_ID, MAX_REPLICAS, MessageType, maxBodyBytes } from './messages.js';

//  0             8            12     14      15      16          24      25
//  | frame id u64 | bytes u32 | vm u16 | pages | nodes | first pfn | flags | node ... | pfn - first, u16 ... unless contiguous
const FIXED_RECORD_BYTES = 25;
const CONTIGUOUS = 1;
/** By flags bits 1 and 2. */
const STATES: readonly FrameState[] = ['kept', 'coming', 'void'];
const STATE_FLAGS = { kept: 0, coming: 2, void: 4 } as const;
const MAX_RECORD_BYTES = FIXED_RECORD_BYTES + MAX_REPLICAS + 2 * FRAME_PAGES;

/**
 * `kept`: it can be fetched, or went straight to the destination. `coming`: it was divided, and is on its way; another record follows. `void`: it never
 * comes, and its pages do in later frames.
 */
export type FrameState = 'kept' | 'coming' | 'void';

export interface FrameRecord {
  readonly state: FrameState;
  readonly frameId: number;
  readonly frameBytes: number;
  readonly vm: number;
  readonly pages: number;
  /** The first `pages` entries are the frame's page numbers, ascending. */
  readonly pfns: Float64Array;
  readonly nodes: number;
  /** The first `nodes` entries are indices into the list of nodes, in order of preference; none: the frame went straight to the destination. */
  readonly nodeIndexes: Uint8Array;
}

/** What the migration said of itself: a record that names anything else is refused. */
export interface RecordLimits {
  readonly nodes: number;
  readonly vms: number;
  /** Pages of the image of a VM: its page numbers are below this. */
  readonly imagePages: (vm: number) => number;
}

/** Collects records for one RECORDS message. */
export class RecordWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #end = 0;
  #records = 0;

  constructor(capacityBytes = maxBodyBytes(MessageType.RECORDS)) {
    if (capacityBytes < MAX_RECORD_BYTES) throw new RangeError(`a record may need ${MAX_RECORD_BYTES} bytes`);
    this.#bytes = new Uint8Array(capacityBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get records(): number {
    return this.#records;
  }

  /**
   * Adds a record; false, and nothing is added, if it may not fit: take what is there first.
   * @param pfns the frame's page numbers, ascending, within 65,536 of the first; `pages` of them from `pfnsFrom`.
   * @throws {RangeError} if the record would be refused by the reader.
   */
  add(
    frameId: number,
    frameBytes: number,
    vm: number,
    nodeIndexes: ArrayLike<number>,
    pfns: ArrayLike<number>,
    pages = pfns.length,
    pfnsFrom = 0,
    state: FrameState = 'kept',
  ): boolean {
    const nodes = nodeIndexes.length;
    const first = pfns[pfnsFrom] ?? 0;
    const fault = findFault(state, frameId, frameBytes, vm, pages, nodes, first);
    if (fault !== null) throw new RangeError(fault);
    if (this.#end + FIXED_RECORD_BYTES + nodes + 2 * pages > this.#bytes.byteLength) return false;
    const view = this.#view;
    const at = this.#end;
    view.setUint32(at, frameId >>> 0, true);
    view.setUint32(at + 4, Math.floor(frameId / 2 ** 32), true);
    view.setUint32(at + 8, frameBytes, true);
    view.setUint16(at + 12, vm, true);
    view.setUint8(at + 14, pages);
    view.setUint8(at + 15, nodes);
    view.setUint32(at + 16, first >>> 0, true);
    view.setUint32(at + 20, Math.floor(first / 2 ** 32), true);
    const contiguous = pfns[pfnsFrom + pages - 1] === first + pages - 1;
    view.setUint8(at + 24, (contiguous ? CONTIGUOUS : 0) | STATE_FLAGS[state]);
    let end = at + FIXED_RECORD_BYTES;
    for (let i = 0; i < nodes; i++) view.setUint8(end++, nodeIndexes[i]!);
    for (let i = 0, previous = -1; i < pages; i++) {
      const delta = pfns[pfnsFrom + i]! - first;
      if (!(delta > previous && delta <= 0xffff)) throw new RangeError(`pfn ${pfns[pfnsFrom + i]} of frame ${frameId}`);
      previous = delta;
      if (contiguous) continue;
      view.setUint16(end, delta, true);
      end += 2;
    }
    this.#end = end;
    this.#records++;
    return true;
  }

  /** A copy of what was collected, ready to be sent, and starts anew. */
  take(): Uint8Array {
    const body = this.#bytes.slice(0, this.#end);
    this.#end = 0;
    this.#records = 0;
    return body;
  }
}

/** Reads RECORDS bodies. One reader serves a whole connection. */
export class RecordReader {
  readonly #limits: RecordLimits;
  readonly #record = {
    state: 'kept' as FrameState,
    frameId: 0,
    frameBytes: 0,
    vm: 0,
    pages: 0,
    pfns: new Float64Array(FRAME_PAGES),
    nodes: 0,
    nodeIndexes: new Uint8Array(MAX_REPLICAS),
  };

  constructor(limits: RecordLimits) {
    this.#limits = limits;
  }

  /**
   * Calls `onRecord` for each record; the object is reused, take what you need. Returns how many there were.
   * @throws {AbdmError} `PROTOCOL` at the first record that is cut short, impossible, or outside the limits.
   */
  read(body: Uint8Array, onRecord: (record: FrameRecord) => void): number {
    let records = 0;
    for (let at = 0; at < body.byteLength; records++) {
      const { record, end } = this.readOne(body, at);
      onRecord(record);
      at = end;
    }
    return records;
  }

  /**
   * The record that begins at byte `start`, and where it ends. The record is reused.
   * @throws {AbdmError} `PROTOCOL` as `read` does.
   */
  readOne(body: Uint8Array, start: number): { record: FrameRecord; end: number } {
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    const left = view.byteLength - start;
    if (left < FIXED_RECORD_BYTES) throw bad(start, 'is cut short');
    const frameId = view.getUint32(start + 4, true) * 2 ** 32 + view.getUint32(start, true);
    const frameBytes = view.getUint32(start + 8, true);
    const vm = view.getUint16(start + 12, true);
    const pages = view.getUint8(start + 14);
    const nodes = view.getUint8(start + 15);
    const first = view.getUint32(start + 20, true) * 2 ** 32 + view.getUint32(start + 16, true);
    const flags = view.getUint8(start + 24);
    const state = STATES[flags >> 1];
    if (state === undefined) throw bad(start, `flags are ${flags}`);
    const fault = findFault(state, frameId, frameBytes, vm, pages, nodes, first);
    if (fault !== null) throw bad(start, fault);
    if (vm >= this.#limits.vms) throw bad(start, `vm ${vm}, there are ${this.#limits.vms}`);
    const contiguous = (flags & CONTIGUOUS) !== 0;
    if (left < FIXED_RECORD_BYTES + nodes + (contiguous ? 0 : 2 * pages)) throw bad(start, 'is cut short');

    const record = this.#record;
    let at = start + FIXED_RECORD_BYTES;
    for (let i = 0; i < nodes; i++) {
      const node = view.getUint8(at++);
      if (node >= this.#limits.nodes) throw bad(start, `node ${node}, there are ${this.#limits.nodes}`);
      for (let j = 0; j < i; j++) if (record.nodeIndexes[j] === node) throw bad(start, `node ${node} twice`);
      record.nodeIndexes[i] = node;
    }
    for (let i = 0, previous = -1; i < pages; i++) {
      const delta = contiguous ? i : view.getUint16(at, true);
      if (!contiguous) at += 2;
      if (delta <= previous || (i === 0 && delta !== 0)) throw bad(start, 'page numbers do not ascend');
      previous = delta;
      record.pfns[i] = first + delta;
    }
    const imagePages = this.#limits.imagePages(vm);
    const last = record.pfns[pages - 1]!;
    if (last >= imagePages) throw bad(start, `pfn ${last}, vm ${vm} has ${imagePages} pages`);
    record.state = state;
    record.frameId = frameId;
    record.frameBytes = frameBytes;
    record.vm = vm;
    record.pages = pages;
    record.nodes = nodes;
    return { record, end: at };
  }
}

function findFault(
  state: FrameState,
  frameId: number,
  frameBytes: number,
  vm: number,
  pages: number,
  nodes: number,
  first: number,
): string | null {
  if (!(frameId >= 0 && frameId <= MAX_ID)) return 'frame id above 2^53 - 1';
  if (!(frameBytes >= 1 && frameBytes <= MAX_FRAME_BYTES)) return `a frame of ${frameBytes} bytes`;
  if (!(vm >= 0 && vm < MAX_VMS)) return `vm ${vm}`;
  if (!(pages >= 1 && pages <= FRAME_PAGES)) return `${pages} pages`;
  if (!(nodes >= 0 && nodes <= MAX_REPLICAS)) return `${nodes} nodes`;
  if (state !== 'kept' && nodes > 0) return `is ${state}, and at ${nodes} nodes`;
  if (!(first >= 0 && first <= MAX_ID - 0xffff)) return `first pfn ${first}`;
  return null;
}

function bad(at: number, why: string): AbdmError {
  return new AbdmError('PROTOCOL', `RECORDS: the record at byte ${at}: ${why}`);
}
