// Which migrations a store has by the names of their VMs.

import { AbdmError } from '../../bindings/errors.js';
import type { FoundMigration, Registration } from '../mam/bodies.js';
import type { Engine } from './engine.js';
import { decodeHead, decodeHolder, decodeMigrations, encodeMigrations, type Head, Keys, nameKey } from './records.js';

const TRIES = 20;

/** Migrations with a VM of this name. */
export async function lookUpName(engine: Engine, name: string): Promise<FoundMigration[]> {
  const found: FoundMigration[] = [];
  for (const migration of await migrationsOf(engine, name)) {
    const keys = new Keys(migration);
    const head = await headOf(engine, keys);
    if (!head?.registration) continue;
    const { vms, over = [], parked, complete, frames, replicas, voters } = head.registration;
    if (!vms.includes(name)) continue;
    const [claim, sourceConnected, expiresInMs] = await Promise.all([
      engine.get(keys.claim),
      engine.touch([keys.source], null),
      engine.ttlMs(keys.head),
    ]);
    found.push({
      migration,
      ...{ vms, over, parked, complete, frames, replicas, voters },
      claimed: claim && decodeHolder(claim).by,
      sourceConnected: sourceConnected[0] === true,
      expiresInMs,
    });
  }
  return found;
}

/**
 * Makes this migration known by its names, for as long as it stays.
 * @throws {AbdmError} with a cause whose code is USAGE if another migration that is parked here has one of the names.
 */
export async function enterNames(engine: Engine, migration: string, names: Registration['vms'], ttlMs: number) {
  const over = new Set<string>();
  for (const name of names) {
    for (const other of await migrationsOf(engine, name)) {
      if (other === migration) continue;
      const head = await headOf(engine, new Keys(other));
      if (!head) over.add(other);
      const registration = head?.registration;
      if (!registration?.parked || !registration.vms.includes(name)) continue;
      const text = `a VM named '${name}' is parked here already, by migration ${other}: merge or drop that one first, or use another name`;
      throw new AbdmError('PEER_ABORTED', text, { cause: { code: 'USAGE' } });
    }
  }
  for (const name of names) {
    await change(engine, name, ttlMs, (known) => {
      if (known.includes(migration)) return known;
      return [...known.filter((one) => !over.has(one)), migration];
    });
  }
}

export async function leaveNames(engine: Engine, migration: string, names: Registration['vms']): Promise<void> {
  for (const name of names) await change(engine, name, 0, (known) => known.filter((one) => one !== migration));
}

/** The names stay for so long; those that others have too, at least. */
export async function renewNames(engine: Engine, migration: string, names: Registration['vms'], ttlMs: number) {
  for (const name of names) {
    const isAlone = (await migrationsOf(engine, name)).every((one) => one === migration);
    const key = nameKey(name);
    if (isAlone || (await engine.ttlMs(key)) < ttlMs) await engine.touch([key], ttlMs);
  }
}

async function headOf(engine: Engine, keys: Keys): Promise<Head | null> {
  const raw = await engine.get(keys.head);
  return raw && decodeHead(raw);
}

async function migrationsOf(engine: Engine, name: string): Promise<string[]> {
  const raw = await engine.get(nameKey(name));
  return raw ? decodeMigrations(raw) : [];
}

async function change(engine: Engine, name: string, ttlMs: number, next: (known: string[]) => string[]) {
  const key = nameKey(name);
  for (let left = TRIES; left > 0; left--) {
    const raw = await engine.get(key);
    const known = raw ? decodeMigrations(raw) : [];
    const wanted = next(known);
    if (wanted.join() === known.join()) return;
    if (raw === null) {
      const added = await engine.add(key, encodeMigrations(wanted), ttlMs);
      if (added === 'stored') return;
      if (added === 'full') throw new AbdmError('NO_ROOM', 'the store has no room for a name');
    } else {
      const staysMs = Math.max(ttlMs, await engine.ttlMs(key));
      if (await engine.swap(key, raw, wanted.length > 0 ? encodeMigrations(wanted) : null, staysMs)) return;
    }
  }
  throw new AbdmError('PEER_UNREACHABLE', `others change what is known of ${name} all the time`);
}
