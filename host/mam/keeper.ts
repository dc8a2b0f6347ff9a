// Who keeps blocks (frames, and the index of them), seen by a client: the one interface that stands before our own nodes and before other stores
// (docs/stores.md). MamNode is one implementation, StoreKeeper another; `addDriver` (dial.ts) takes others.

import type { AbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';
import type { Claimed, Registration } from './bodies.js';

/** A connection to whoever keeps the blocks of one migration. */
export interface FrameKeeper extends NodeRef {
  /** Room for blocks, in bytes, as it last said. */
  readonly freeBytes: number;
  /** Bytes sent to it. */
  readonly bytesOut: number;
  /** So many holders have a block that was put without a chain. More than one: it makes copies by itself. */
  readonly copies: number;
  /** Holders like it pass a block on along a chain; others are each given it by whoever puts it. */
  readonly chains: boolean;
  /** It can be asked for something now. */
  readonly open: boolean;
  /** Why it will never be open again; null: it is open, or soon will be. */
  readonly gone: Gone | null;
  /**
   * Resolves when all holders have the block, or when it is known why not. A block that is kept already stays as it is, and is stored.
   * @throws {AbdmError} PEER_GONE and others if it is gone, PEER_UNREACHABLE if the deadline passes; it may then have the block or not.
   */
  put(id: number, block: Uint8Array, chain?: readonly NodeRef[], options?: PutOptions): Promise<PutResult>;
  /**
   * Fetches a block into `into` and resolves to its length in bytes. Once it has settled `into` is not written to any more.
   * @throws {AbdmError} FRAME_LOST if it is not there, PEER_UNREACHABLE if the deadline passes, PEER_GONE and others if the keeper is gone.
   */
  get(id: number, into: Uint8Array, options?: { deadlineMs?: number }): Promise<number>;
  /** Ids of blocks that are kept, from `from` on, ascending; a part of them. None: there are no more. */
  list(from: number): Promise<number[]>;
  /**
   * Tells what this migration is, so that others can find and claim it.
   * @throws {AbdmError} with a cause whose code is USAGE: another migration with a VM of that name is parked here.
   */
  register(registration: Registration): Promise<{ expiresInMs: number }>;
  /** Asks for the migration, for whoever has the token; `by` says who that is, to people. */
  claim(token: string, by: string, options?: ClaimOptions): Promise<Claimed>;
  /** Gives a claim back. */
  release(token: string, by: string, deadlineMs?: number): Promise<Claimed>;
  /** The migration stays for so long after its last connection. */
  lease(leaseMs: number, deadlineMs?: number): Promise<{ expiresInMs: number }>;
  /** Before anything is final: one that finds that it does not have any more what it said that it has is gone from then on. */
  verify(): Promise<void>;
  /** Whether it answers within this. */
  ping(timeoutMs: number): Promise<boolean>;
  /** Everything of this migration is forgotten; says what that was, as far as it knows. */
  drop(deadlineMs?: number): Promise<{ frames: number; bytes: number }>;
  /** Ends the connection. */
  end(): void;
  /** Ends the connection at once: what is on its way is given up. */
  abandon(): void;
}

/** Which migration a keeper is spoken to about, as whom, and for how long it is waited for. */
export interface KeeperOptions {
  /** 32 hexadecimal digits. */
  readonly migration: string;
  readonly role: 'source' | 'destination' | 'frames' | 'urgent' | 'intermediate';
  readonly security?: Security;
  /** Only this one will do; another one at the address is as if nobody were there. */
  readonly id?: string;
  /** How many holders each block is to have: for those that make copies by themselves. Default 1. */
  readonly replicas?: number;
  /** One that is asked for something and says nothing at all for so long is given up. Default 60 s. */
  readonly answerMs?: number;
  /** It must be connected and have said what it is within this. Default 5 s. */
  readonly timeoutMs?: number;
  /** Aborted before it is connected, connecting is given up, for the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called when `open` or `gone` has changed. */
  readonly onState?: (keeper: FrameKeeper) => void;
}

/** How a claim is meant. */
export interface ClaimOptions {
  /** Granted, it is never given to anybody else. */
  readonly forGood?: boolean;
  readonly deadlineMs?: number;
}

/** Why a keeper is not there any more, and whether it has surely lost its blocks. */
export interface Gone {
  readonly error: AbdmError;
  readonly surely: boolean;
}

/** Nothing listens there; or another one does; or it says itself that it has dropped everything. */
const SURELY = ['ECONNREFUSED', 'ANOTHER_NODE', 'CANCELLED'];

/** Whether a failed connection proves that the keeper, or what it kept of the migration, is gone; otherwise it may just be out of reach. */
export function isSurelyGone(error: unknown): boolean {
  return SURELY.includes(peerCode(error) ?? '');
}

/** What a peer or the system called an error that a connection ended with; null if it said nothing. */
export function peerCode(error: unknown): string | null {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === 'object' && cause !== null && 'code' in cause ? String(cause.code) : null;
}

/** A node, by where it is and which one it is: restarted at the same address it is another one, and has nothing. */
export interface NodeRef {
  /** HOST:PORT, or a store's address (dial.ts). */
  readonly address: string;
  /** 32 lower-case hexadecimal digits. */
  readonly id: string;
}

/** What a put may need to know. */
export interface PutOptions {
  /** The put rejects with PEER_UNREACHABLE if there is no answer after so long. The connection stays, a late answer is counted. */
  readonly deadlineMs?: number;
  /**
   * Called once, when the block's bytes are not needed any more: at the latest then they may be overwritten. It is after the answer, or later if the
   * deadline has passed and a socket is still taking them.
   */
  readonly onFree?: () => void;
  /** To a destination: blocks like this one fill its link. */
  readonly fills?: boolean;
}

/** What became of a put. */
export type PutResult =
  | {
      readonly stored: true;
      /** Of each holder, in the order of the chain. */
      readonly freeBytes: readonly number[];
    }
  | {
      readonly stored: false;
      /** NO_ROOM, FRAME_CHECKSUM, PEER_GONE, CANCELLED and others. */
      readonly code: string;
      readonly message: string;
      /** The address of the one in the chain that it failed at. */
      readonly node: string;
    };
