// The live index of nodes (paper: the MAM's index): who keeps frames, with how much room, and who seems to be gone. It hears announcements,
// believes those that are authentic, fresh and new, and is told by its owner which connections failed.

import { AbdmError } from '../../bindings/errors.js';
import { checkKeeperAddress } from '../wire/address.js';
import { PROTOCOL_VERSION } from '../wire/messages.js';
import type { Security } from '../wire/security.js';
import { announcementKey, decodeAnnouncement } from './announcement.js';
import { DEFAULT_PLACES, isLoopback, listenAt } from './places.js';
import { MAX_NODES, type NodeInfo, NodeTable } from './table.js';

export type { NodeInfo } from './table.js';

/** Who has not been heard after this has not announced: two announcements, and a little for their way. */
export const HEARD_ALL_MS = 2_500;
/** Clocks of nodes and clients must agree to this. */
const MAX_CLOCK_MS = 30_000;
const SWEEP_MS = 250;

/** What the index is opened with. */
export interface NodeIndexOptions {
  readonly security: Security;
  /** The address of each node or store: exactly these, and announcements only refresh what is known of them. Without: whoever announces. */
  readonly listed?: readonly string[];
  /** Where to listen: multicast groups are joined, any other HOST:PORT is bound. Default 239.77.77.77:7077, with `listed` nowhere. */
  readonly announcements?: readonly string[];
}

/** Datagrams since the index was opened. */
export interface AnnouncementCounts {
  /** Believed. */
  heard: number;
  /** Not made with our key: from another cluster, or a forgery. Without a key: signed, or from another host. */
  forged: number;
  /** Authentic, and not newer than what was heard before. */
  replayed: number;
  /** Authentic, and more than 30 s off our clock: old, or one of the two clocks is wrong. */
  stale: number;
  /** No announcements at all. */
  malformed: number;
  /** Authentic, of a node that speaks another version of the protocol. */
  foreign: number;
  /** Authentic, of a node that is not listed, or beyond the 256th. */
  ignored: number;
}

/** The live index of nodes. */
export class NodeIndex {
  readonly counts: AnnouncementCounts = {
    heard: 0,
    forged: 0,
    replayed: 0,
    stale: 0,
    malformed: 0,
    foreign: 0,
    ignored: 0,
  };
  readonly #table: NodeTable;
  readonly #key: Uint8Array | null;
  readonly #listeners = new Set<() => void>();
  readonly #sweeping: NodeJS.Timeout;
  #receiver: { close(): void } | null = null;

  private constructor(table: NodeTable, key: Uint8Array | null) {
    this.#table = table;
    this.#key = key;
    const sweep = () => {
      if (table.sweep(performance.now())) this.#changed();
    };
    // Not before what waits in the sockets was read: after this process was busy or stopped, nobody has been silent but itself.
    this.#sweeping = setInterval(() => setImmediate(sweep), SWEEP_MS);
    this.#sweeping.unref();
  }

  /**
   * Begins to listen; whoever announces is known within a second or two. Close it, or the process does not end.
   * @throws {AbdmError} `USAGE` if an address is wrong or nobody can listen there, or with certificates and no key where announcements are needed.
   */
  static async open({ security, listed, announcements }: NodeIndexOptions): Promise<NodeIndex> {
    if (listed && listed.length > MAX_NODES) {
      throw new AbdmError('USAGE', `${listed.length} nodes are listed, ${MAX_NODES} are allowed`);
    }
    for (const address of listed ?? []) checkKeeperAddress(address);
    const places = announcements ?? (listed ? [] : DEFAULT_PLACES);
    if (!listed && places.length === 0) {
      throw new AbdmError('USAGE', 'no nodes are listed, and nowhere is listened for any: give one or the other');
    }
    const key = places.length > 0 ? announcementKey(security) : null;
    const index = new NodeIndex(new NodeTable(listed ?? null), key);
    try {
      index.#receiver = await listenAt(places, key === null, (datagram, from) => index.#onDatagram(datagram, from));
    } catch (error) {
      index.close();
      throw error;
    }
    return index;
  }

  /** All nodes, up or suspect, by address: a snapshot, made anew by each call. */
  nodes(): NodeInfo[] {
    return this.#table.nodes(performance.now());
  }

  /**
   * Calls `listener` whenever a node joins, leaves or is replaced by another one, becomes suspect or is up again, or has other memory. Returns what
   * ends that.
   */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A connection to this node failed: it is suspect at once, until it is heard again or trusted. */
  suspect(address: string): void {
    if (this.#table.suspect(address, performance.now())) this.#changed();
  }

  /** This node answers, whether it is heard or not. */
  trust(address: string): void {
    if (this.#table.trust(address)) this.#changed();
  }

  /** Listens no more, and calls no listener any more. */
  close(): void {
    clearInterval(this.#sweeping);
    this.#listeners.clear();
    this.#receiver?.close();
    this.#receiver = null;
  }

  #onDatagram(datagram: Uint8Array, from: string): void {
    const said = decodeAnnouncement(datagram, this.#key);
    if (typeof said === 'string') this.counts[said]++;
    // A group that another program of this host has joined on a real interface is heard here too.
    else if (this.#key === null && !isLoopback(from)) this.counts.forged++;
    else if (said.protocol !== PROTOCOL_VERSION) this.counts.foreign++;
    else if (Math.abs(said.clockMs - Date.now()) > MAX_CLOCK_MS) this.counts.stale++;
    else {
      const verdict = this.#table.hear(said, performance.now());
      this.counts[verdict === 'changed' || verdict === 'same' ? 'heard' : verdict]++;
      if (verdict === 'changed') this.#changed();
    }
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
