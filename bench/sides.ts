// What is measured: sides that do the same job on the same pages, ours first.
import type { Native } from './native/native.js';
import type { PageClass } from './pages.js';
import type { Pool } from './pool.js';

/** A piece of the pool: what a side works on in one turn. */
export interface Slice {
  /** Index of its first page. */
  first: number;
  pages: number;
  /** How often the sides have begun anew: contents must not be those of an earlier pass (pool.ts). */
  pass: number;
}

interface Named {
  /** The peer's package name, or what else it is. */
  name: string;
}

/** A side in this process. The harness takes its time. */
export interface LocalSide extends Named {
  /** Called before the first slice of a pass, not measured. */
  begin?(): Promise<void>;
  /** Called before each turn, not measured. */
  prepare?(slice: Slice): void;
  /** The work. Returns what came out of it: a count, bytes, the last hash. Sides that do the same must return the same. */
  run(slice: Slice): number;
}

export interface Turn {
  /** CPU time. */
  seconds: number;
  outcome: number;
}

/** A side in another process, which takes its own time. */
export interface RemoteSide extends Named {
  turn(slice: Slice): Promise<Turn>;
}

export type Side = LocalSide | RemoteSide;

export function isLocal(side: Side): side is LocalSide {
  return 'run' in side;
}

export interface Context {
  pool: Pool;
  native: Native | undefined;
}

export interface Kernel {
  name: string;
  /** The classes of pages it is measured with. */
  pages: readonly PageClass[];
  /** Those of a quick run. */
  quickPages: readonly PageClass[];
  /** What comes out of a turn is a number of bytes: rows carry the ratio of sizes. */
  compresses: boolean;
  sides(context: Context): Promise<Side[]>;
}
