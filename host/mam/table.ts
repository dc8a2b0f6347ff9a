// Which nodes there are, as far as their announcements and our own connections tell: the state behind NodeIndex, without sockets or clocks.
//
//   unknown --heard--> up --3 announcements missed, or a connection failed--> suspect --60 s--> forgotten
//                       ^                                                       |
//                       +------------ heard again, or a connection stands ------+
//
// A node that says goodbye is suspect from then on, and not shown any more. A listed node is always shown, and never forgotten.
//
// At an address the last to start counts, and of its announcements the last in sequence: everything else is a replay. By the time that this is
// forgotten, what could be replayed is older than the index takes (MAX_CLOCK_MS).

import type { Announcement } from './announcement.js';

/** More nodes than this are not kept in mind. */
export const MAX_NODES = 256;
/** Three announcements, a second apart, and a little for their way. */
const MISSED_MS = 3_500;
const FORGET_MS = 60_000;

/** A node as it is known now. */
export interface NodeInfo {
  /** 32 hex digits; another one at the same address is another node. Null while nothing was heard of it. */
  readonly id: string | null;
  readonly address: string;
  /** As it last said; 0 while nothing was heard of it. */
  readonly freeBytes: number;
  readonly memoryBytes: number;
  /** CPU time of its process over a second, as a share of one core. */
  readonly load: number;
  readonly connections: number;
  /** It was named by who opened the index. */
  readonly listed: boolean;
  /** It has missed three announcements, has said goodbye, or a connection to it failed. */
  readonly suspect: boolean;
  /** Since its last announcement; null if there was none. */
  readonly heardMsAgo: number | null;
}

interface Known {
  readonly address: string;
  readonly listed: boolean;
  said: Announcement | null;
  /** When that was heard, by the caller's clock. */
  heardMs: number;
  suspect: boolean;
  suspectMs: number;
  /** Its silence has made it suspect once; trusted nevertheless, it stays so. */
  missed: boolean;
}

export class NodeTable {
  readonly #known = new Map<string, Known>();
  readonly #onlyListed: boolean;

  /** @param listed exactly these nodes, or null for whoever announces. */
  constructor(listed: readonly string[] | null) {
    this.#onlyListed = listed !== null;
    for (const address of listed ?? []) this.#add(address, true);
  }

  /**
   * Takes in an announcement that is authentic. `changed`: a node is new or another one, up again or leaving, or has other memory. `ignored`: not
   * listed, or one too many.
   */
  hear(said: Announcement, nowMs: number): 'changed' | 'same' | 'replayed' | 'ignored' {
    let node = this.#known.get(said.address);
    if (!node) {
      if (this.#onlyListed || this.#known.size >= MAX_NODES) return 'ignored';
      node = this.#add(said.address, false);
    }
    const before = node.said;
    if (before && !isNewer(said, before)) return 'replayed';
    const same =
      before?.id === said.id && before.freeBytes === said.freeBytes && before.memoryBytes === said.memoryBytes;
    const changed = !same || node.suspect || said.leaving;
    Object.assign(node, { said, heardMs: nowMs, missed: false, suspect: said.leaving, suspectMs: nowMs });
    return changed ? 'changed' : 'same';
  }

  /** A connection to it failed. Whether that changes anything. */
  suspect(address: string, nowMs: number): boolean {
    const node = this.#known.get(address);
    if (!node || node.suspect) return false;
    node.suspect = true;
    node.suspectMs = nowMs;
    return true;
  }

  /** It answers. Whether that changes anything. */
  trust(address: string): boolean {
    const node = this.#known.get(address);
    if (!node?.suspect) return false;
    node.suspect = false;
    return true;
  }

  /** What the passing of time alone does; call it a few times a second. Whether it changes anything. */
  sweep(nowMs: number): boolean {
    let changed = false;
    for (const node of this.#known.values()) {
      const silentMs = nowMs - node.heardMs;
      if (node.said && !node.missed && silentMs > MISSED_MS) {
        node.missed = true;
        if (this.suspect(node.address, nowMs)) changed = true;
      }
      if (node.suspect && node.said && nowMs - node.suspectMs > FORGET_MS && silentMs > FORGET_MS) {
        if (node.listed) node.said = null;
        else this.#known.delete(node.address);
        changed = true;
      }
    }
    return changed;
  }

  /** A snapshot, by address. */
  nodes(nowMs: number): NodeInfo[] {
    const shown = [...this.#known.values()].filter(
      ({ listed, suspect, said }) => listed || !(suspect && said?.leaving),
    );
    return shown
      .map(({ address, listed, suspect, said, heardMs }) => ({
        id: said?.id ?? null,
        address,
        freeBytes: said?.freeBytes ?? 0,
        memoryBytes: said?.memoryBytes ?? 0,
        load: said?.load ?? 0,
        connections: said?.connections ?? 0,
        listed,
        suspect,
        heardMsAgo: said && Math.round(nowMs - heardMs),
      }))
      .sort((a, b) => (a.address < b.address ? -1 : 1));
  }

  #add(address: string, listed: boolean): Known {
    const node: Known = {
      address,
      listed,
      said: null,
      heardMs: 0,
      suspect: false,
      suspectMs: 0,
      missed: false,
    };
    this.#known.set(address, node);
    return node;
  }
}

function isNewer(said: Announcement, before: Announcement): boolean {
  if (said.startedMs !== before.startedMs) return said.startedMs > before.startedMs;
  return said.id === before.id && said.sequence > before.sequence;
}
