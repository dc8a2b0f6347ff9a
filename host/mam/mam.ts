// The MAM as its client sees it: the nodes that keep frames, and which of them takes the next one.
//
// Placement is a function of the offset and of the nodes that are there: weighted rendezvous hashing ranks them for each extent of 64 pages, by
// their memory. The best-ranked node takes the frame unless it is full, gone, or slow: its window of unacknowledged bytes is used up. Then it is
// the next one's turn, so that a slow node is given less and holds nobody up.

import { FRAME_PAGES } from '../../bindings/abi.js';
import { AbdmError } from '../../bindings/errors.js';
import { Placement } from '../../bindings/placement.js';
import { MamNode } from './node.js';

/** Bytes on their way to one node: what 10 Gbit/s carry in 3 ms. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** The nodes that keep this migration's frames, and which of them takes the next one. */
export class Mam {
  readonly nodes: readonly MamNode[];
  readonly #placement: Placement;
  /** What was full when it was last asked takes nothing more. */
  readonly #full = new Set<MamNode>();

  private constructor(nodes: readonly MamNode[], placement: Placement) {
    this.nodes = nodes;
    this.#placement = placement;
    placement.setNodes(nodes.map(({ address, freeBytes }) => ({ name: address, weight: freeBytes })));
  }

  /** Connects to all nodes. If one cannot be reached, none is: whoever named it expects it to be there. @throws {AbdmError} */
  static async connect(
    addresses: readonly string[],
    migration: string,
    role: 'source' | 'destination' | 'frames',
  ): Promise<Mam> {
    const placement = await Placement.create();
    const connected = await Promise.allSettled(
      addresses.map((address) => MamNode.connect(address, { migration, role })),
    );
    const nodes = connected.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const failed = connected.find((result) => result.status === 'rejected');
    if (failed) {
      for (const node of nodes) node.end();
      throw failed.reason;
    }
    return new Mam(nodes, placement);
  }

  /**
   * The index of the node that takes a frame of `bytes` bytes that begins at page `pfn` of `vm`, or -1 if all that have room are busy: ask again when a
   * frame was acknowledged.
   * @throws {AbdmError} NO_ROOM if no node is left that could take it.
   */
  choose(vm: number, pfn: number, bytes: number): number {
    const extent = Math.floor(pfn / FRAME_PAGES) + vm * 2 ** 40;
    let busy = false;
    for (const index of this.#placement.pick(extent, this.nodes.length)) {
      const node = this.nodes[index]!;
      if (!node.open || this.#full.has(node)) continue;
      if (node.outstandingBytes > 0 && node.outstandingBytes + bytes > Math.min(WINDOW_BYTES, node.freeBytes))
        busy = true;
      else if (node.freeBytes >= bytes) return index;
    }
    if (busy) return -1;
    throw new AbdmError('NO_ROOM', this.#noRoom(bytes));
  }

  /** @throws {AbdmError} FRAME_LOST if a node is gone that has acknowledged frames. */
  requireHolders(): void {
    const lost = this.nodes.find((node) => !node.open && node.stored.frames > 0);
    if (!lost) return;
    const what = `${lost.stored.frames} frames that ${lost.address} had acknowledged`;
    throw new AbdmError('FRAME_LOST', `${what} went with it: the connection to it ended`);
  }

  /** A node refused a frame for want of room. */
  markFull(index: number): void {
    this.#full.add(this.nodes[index]!);
  }

  /** Every node that is still there forgets the frames of this migration. Returns the addresses of those that could not be told. */
  async drop(): Promise<string[]> {
    const results = await Promise.allSettled(this.nodes.map((node) => node.drop()));
    return results.flatMap((result, i) => (result.status === 'rejected' ? [this.nodes[i]!.address] : []));
  }

  /** Ends the connections to all nodes. */
  end(): void {
    for (const node of this.nodes) node.end();
  }

  get bytesOut(): number {
    return this.nodes.reduce((sum, node) => sum + node.bytesOut, 0);
  }

  get bytesIn(): number {
    return this.nodes.reduce((sum, node) => sum + node.bytesIn, 0);
  }

  /** What each node has acknowledged. */
  get shares(): { address: string; frames: number; bytes: number }[] {
    return this.nodes.map(({ address, stored }) => ({ address, ...stored }));
  }

  #noRoom(bytes: number): string {
    const states = this.nodes.map((node) => {
      const state = node.open ? `${node.freeBytes} bytes free` : 'gone';
      return `${node.address} (${state}, keeps ${node.stored.bytes})`;
    });
    return `no node has room for a frame of ${bytes} bytes: ${states.join(', ')}; add intermediates, or start them with more --memory`;
  }
}
