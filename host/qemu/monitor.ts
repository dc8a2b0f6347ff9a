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
}

/** How far a migration is, while the guest runs. */
export interface Progress {
  /** How often it has asked what the guest has written to. */
  readonly dirtySyncs: number;
  /** What is to be sent, as far as it knows. */
  readonly remainingBytes: number;
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
    };
  });
}

/** Why this guest cannot migrate at all, in QEMU's words; none: it can. */
export function blockedReasons(qmp: QmpClient): Promise<string[]> {
  return ask(qmp, 'query-migrate', (answer, what) => {
    if (!Object.hasOwn(answer, 'blocked-reasons')) return [];
    return need.list(answer, 'blocked-reasons', what, 1000, String);
  });
}

/** All zeros before there is any. */
export function progress(qmp: QmpClient): Promise<Progress> {
  return ask(qmp, 'query-migrate', (answer, what) => {
    if (!Object.hasOwn(answer, 'ram')) return { dirtySyncs: 0, remainingBytes: 0 };
    const ram = need.object(answer, 'ram', what);
    return {
      dirtySyncs: need.integer(ram, 'dirty-sync-count', what),
      remainingBytes: need.integer(ram, 'remaining', what),
    };
  });
}

/** All that this QEMU knows, and whether they are on. */
export async function capabilities(qmp: QmpClient): Promise<ReadonlyMap<string, boolean>> {
  const what = 'the answer to query-migrate-capabilities';
  const answer = { return: await qmp.execute('query-migrate-capabilities') };
  const states = checked(() =>
    need.list(answer, 'return', what, 1000, (item) => {
      const state = need.isObject(item, what, 'return');
      return [need.string(state, 'capability', what), need.boolean(state, 'state', what)] as const;
    }),
  );
  return new Map(states);
}

/** By name; which there are, and what they are, differs between versions. */
export function parameters(qmp: QmpClient): Promise<JsonObject> {
  return ask(qmp, 'query-migrate-parameters', (answer) => answer);
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

/** A migration that is under way is given up; returns at once. */
export async function cancelMigration(qmp: QmpClient): Promise<void> {
  await qmp.execute('migrate_cancel');
}

/** The guest stands still; one that does already, stays as it is. */
export async function stopGuest(qmp: QmpClient): Promise<void> {
  await qmp.execute('stop');
}

export async function continueGuest(qmp: QmpClient): Promise<void> {
  await qmp.execute('cont');
}

/** @throws {AbdmError} IMAGE, also if the answer is not what `read` expects. */
async function ask<T>(qmp: QmpClient, command: string, read: (answer: JsonObject, what: string) => T): Promise<T> {
  const what = `the answer to ${command}`;
  const answer = await qmp.execute(command);
  return checked(() => read(need.isObject(answer, what, 'return'), what));
}

function checked<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new AbdmError('IMAGE', asAbdmError(cause).message, { cause });
  }
}
