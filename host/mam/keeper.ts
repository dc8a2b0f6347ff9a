// Who keeps blocks (frames, and the index of them), seen by a client: the one interface that stands before intermediates and before other stores.

/** Put, get, drop, list, and how much room is left: nothing else. */
export interface FrameKeeper {
  /** HOST:PORT. */
  readonly address: string;
  /** Room for blocks, in bytes, as it last said. */
  readonly freeBytes: number;
  /** Blocks that it has acknowledged, and their bytes. */
  readonly stored: { readonly frames: number; readonly bytes: number };
  /** Bytes sent to it and not acknowledged yet. */
  readonly outstandingBytes: number;
  /** It can be asked for something now. */
  readonly open: boolean;
  /**
   * Resolves when all holders have the block, or when it is known why not.
   * @throws {AbdmError} PEER_GONE and others if it is gone, PEER_UNREACHABLE if the deadline passes; it may then have the block or not.
   */
  put(id: number, block: Uint8Array, chain?: readonly NodeRef[], options?: PutOptions): Promise<PutResult>;
  /**
   * Fetches a block into `into` and resolves to its length in bytes.
   * @throws {AbdmError} FRAME_LOST if it is not there, PEER_UNREACHABLE if the deadline passes, PEER_GONE and others if the keeper is gone.
   */
  get(id: number, into: Uint8Array, options?: { deadlineMs?: number }): Promise<number>;
  /** Ids of blocks that are kept, from `from` on, ascending; a part of them. None: there are no more. */
  list(from: number): Promise<number[]>;
  /** Everything of this migration is forgotten; says what that was. */
  drop(): Promise<{ frames: number; bytes: number }>;
  /** Ends the connection. */
  end(): void;
}

/** A node, by where it is and which one it is: restarted at the same address it is another one, and has nothing. */
export interface NodeRef {
  /** HOST:PORT. */
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
      /** HOST:PORT of the node in the chain that it failed at. */
      readonly node: string;
    };
