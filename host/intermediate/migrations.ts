// The migrations that an intermediate keeps frames of. One stays as long as somebody is connected for it, and for a lease afterwards if it
// has frames: a source that has left comes back as a destination, or not at all.

import { AbdmError } from '../../bindings/errors.js';
import type { BankPool } from './banks.js';
import { type FrameCheck, Frames } from './frames.js';

export interface Migration {
  readonly id: string;
  readonly frames: Frames;
  connections: number;
  lease: NodeJS.Timeout | undefined;
}

export interface MigrationLimits {
  readonly maxMigrations: number;
  readonly leaseMs: number;
  /** A lease ran out: so much was dropped. */
  readonly onExpired: (id: string, dropped: { frames: number; bytes: number }) => void;
}

export class Migrations {
  readonly #pool: BankPool;
  readonly #check: FrameCheck;
  readonly #limits: MigrationLimits;
  readonly #byId = new Map<string, Migration>();

  constructor(pool: BankPool, check: FrameCheck, limits: MigrationLimits) {
    this.#pool = pool;
    this.#check = check;
    this.#limits = limits;
  }

  [Symbol.iterator](): IterableIterator<Migration> {
    return this.#byId.values();
  }

  /**
   * A connection speaks for migration `id` from now on, until `leave`.
   * @throws {AbdmError} `NO_ROOM` if that would be one migration too many.
   */
  join(id: string): Migration {
    let migration = this.#byId.get(id);
    if (migration === undefined) {
      const { maxMigrations } = this.#limits;
      if (this.#byId.size >= maxMigrations) {
        throw new AbdmError(
          'NO_ROOM',
          `frames of ${maxMigrations} migrations are kept here already, the most there may be`,
        );
      }
      migration = { id, frames: new Frames(this.#pool, this.#check), connections: 0, lease: undefined };
      this.#byId.set(id, migration);
    }
    migration.connections++;
    clearTimeout(migration.lease);
    return migration;
  }

  leave(migration: Migration): void {
    migration.connections--;
    if (migration.connections > 0) return;
    if (migration.frames.count === 0) {
      this.#byId.delete(migration.id);
      return;
    }
    migration.lease = setTimeout(() => {
      this.#byId.delete(migration.id);
      this.#limits.onExpired(migration.id, migration.frames.drop());
    }, this.#limits.leaseMs);
    migration.lease.unref();
  }

  /** Drops everything of everybody. */
  clear(): void {
    for (const migration of this.#byId.values()) {
      clearTimeout(migration.lease);
      migration.frames.drop();
    }
    this.#byId.clear();
  }
}
