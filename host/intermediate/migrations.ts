// The migrations that a node keeps blocks of, and those that it has dropped lately.

import { AbdmError } from '../../bindings/errors.js';
import type { Registration } from '../mam/bodies.js';
import { Migration, type MigrationOptions, over } from './migration.js';

/** What is over is remembered for so long: by then nobody is on his way with something for it. */
const REMEMBER_MS = 600_000;
const MAX_REMEMBERED = 4096;

export class Migrations {
  readonly #max: number;
  readonly #options: MigrationOptions;
  readonly #byId = new Map<string, Migration>();
  /** By age, the oldest first. */
  readonly #over = new Map<string, { why: string; untilMs: number }>();

  /** @param max there are at most so many at a time. */
  constructor(max: number, options: MigrationOptions) {
    this.#max = max;
    this.#options = options;
  }

  [Symbol.iterator](): IterableIterator<Migration> {
    return this.#byId.values();
  }

  /**
   * The migration with this id, which begins if it was not known.
   * @throws {AbdmError} `CANCELLED` if it is over, `NO_ROOM` if that would be one too many.
   */
  get(id: string): Migration {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    this.#forgetOld();
    const past = this.#over.get(id);
    if (past !== undefined) throw over(id, past.why);
    if (this.#byId.size >= this.#max) {
      const text = `frames of ${this.#max} migrations are kept here already, the most there may be`;
      throw new AbdmError('NO_ROOM', text);
    }
    const migration = new Migration(id, this.#options, (remember) => this.#onOver(migration, remember));
    this.#byId.set(id, migration);
    return migration;
  }

  /**
   * Whether a migration may have VMs of these names.
   * @throws {AbdmError} `USAGE` if another one that is parked here has one of them: whoever looks for it could not tell which is meant.
   */
  requireFreeNames(id: string, { vms }: Registration): void {
    for (const { id: other, registration } of this) {
      if (other === id || !registration?.parked) continue;
      const taken = vms.find((name) => registration.vms.includes(name));
      if (taken === undefined) continue;
      const text = `a VM named '${taken}' is parked here already, by migration ${other}: merge or drop that one first, or use another name`;
      throw new AbdmError('USAGE', text);
    }
  }

  /** Ends them all. */
  clear(): void {
    for (const migration of [...this]) migration.drop('closed');
  }

  #onOver({ id, dropped }: Migration, remember: boolean): void {
    this.#byId.delete(id);
    if (!remember || dropped === null) return;
    this.#forgetOld();
    this.#over.set(id, { why: dropped, untilMs: performance.now() + REMEMBER_MS });
  }

  #forgetOld(): void {
    const now = performance.now();
    for (const [id, { untilMs }] of this.#over) {
      if (untilMs > now && this.#over.size < MAX_REMEMBERED) return;
      this.#over.delete(id);
    }
  }
}
