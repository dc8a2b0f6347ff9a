// What a migration asks of a QEMU, by name, its answers checked. Sources: qapi/migration.json, qapi/run-state.json.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import { type JsonObject, need } from '../wire/json.js';
import type { QmpClient } from './qmp.js';

/** As far as they matter here; there are others. */
export interface RunState {
  /** "running", "paused", "inmigrate", "postmigrate", ... */
  readonly status: string;
  readonly running: boolean;
}

export interface MigrationState {
  /** "none", "setup", "active", "postcopy-active", "completed", "failed", ... */
  readonly status: string;
  /** Why it has failed; null if it does not say. */
  readonly reason: string | null;
  /** Total time in ms; null until it is known, which in QEMU 7.2 may be after "completed". */
  readonly totalMs: number | null;
}

/** "7.2.17" say. */
export function version(qmp: QmpClient): Promise<string> {
  return ask(qmp, 'query-version', (answer, what) => {
    const parts = need.object(answer, 'qemu', what);
    return ['major', 'minor', 'micro'].map((name) => need.integer(parts, name, what)).join('.');
  });
}

export function runState(qmp: QmpClient): Promise<RunState> {
  return ask(qmp, 'query-status', (answer, what) => ({
    status: need.string(answer, 'status', what),
    running: need.boolean(answer, 'running', what),
  }));
}

export function migrationState(qmp: QmpClient): Promise<MigrationState> {
  return ask(qmp, 'query-migrate', (answer, what) => {
    const has = (name: string) => Object.hasOwn(answer, name);
    return {
      status: has('status') ? need.string(answer, 'status', what) : 'none',
      reason: has('error-desc') ? need.string(answer, 'error-desc', what, 8_000) : null,
      totalMs: has('total-time') ? need.integer(answer, 'total-time', what) : null,
    };
  });
}

/** The capabilities that this QEMU has, and whether they are on. */
export function capabilities(qmp: QmpClient): Promise<Map<string, boolean>> {
  return askFor(qmp, 'query-migrate-capabilities', (answer, what) => {
    const list = need.list({ return: answer }, 'return', what, 256, (item) => need.isObject(item, what, 'return'));
    return new Map(list.map((one) => [need.string(one, 'capability', what), need.boolean(one, 'state', what)]));
  });
}

/** Turns capabilities on and off, all or none of them. */
export async function setCapabilities(qmp: QmpClient, states: Readonly<Record<string, boolean>>): Promise<void> {
  const capabilities = Object.entries(states).map(([capability, state]) => ({ capability, state }));
  await qmp.execute('migrate-set-capabilities', { capabilities });
}

export async function setParameters(qmp: QmpClient, parameters: object): Promise<void> {
  await qmp.execute('migrate-set-parameters', parameters);
}

/** Begins to send to `uri`, "unix:PATH" say; returns at once. */
export async function migrate(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.execute('migrate', { uri });
}

/** A QEMU that was started with `-incoming defer` listens at `uri`. */
export async function migrateIncoming(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.execute('migrate-incoming', { uri });
}

/** The guest stops as soon as its state is sent, and what is left of its memory follows. */
export async function startPostCopy(qmp: QmpClient): Promise<void> {
  await qmp.execute('migrate-start-postcopy');
}

function ask<T>(qmp: QmpClient, command: string, read: (answer: JsonObject, what: string) => T): Promise<T> {
  return askFor(qmp, command, (answer, what) => read(need.isObject(answer, what, 'return'), what));
}

/** @throws {AbdmError} IMAGE, also if the answer is not what `read` expects. */
async function askFor<T>(qmp: QmpClient, command: string, read: (answer: unknown, what: string) => T): Promise<T> {
  const answer = await qmp.execute(command);
  try {
    return read(answer, `the answer to ${command}`);
  } catch (cause) {
    throw new AbdmError('IMAGE', asAbdmError(cause).message, { cause });
  }
}
