// Takes over VMs that were parked: finds them by name, makes sure that the key opens them, and claims them; all before anything is written.

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError } from '../../bindings/errors.js';
import type { Security } from '../wire/security.js';
import type { FoundMigration } from './bodies.js';
import type { Manifest } from './catalog.js';
import { CatalogReader } from './catalog-reader.js';
import { claim, claimError } from './claim.js';
import { type Holder, Holders } from './holders.js';
import type { NodeRef } from './keeper.js';
import { findParked, lookUp } from './lookup.js';
import { migrationSecret } from './secret.js';

/** How often it is looked whether VMs that are still leaving have left. */
const LOOK_MS = 500;
/** How often a claim is repeated where votes are split. */
const CLAIMS = 5;
/** How long the manifest is looked for. */
const MANIFEST_MS = 10_000;

/** What was found and claimed. */
export interface Parked {
  found: FoundMigration;
  /** The migration's secret. */
  key: Uint8Array;
  manifest: Manifest;
  token: string;
  nodes: NodeRef[];
}

export interface ParkedOptions {
  names: readonly string[];
  vmKey: Uint8Array;
  security: Security;
  /** Where nodes are, as far as that is known now. */
  addresses(): readonly string[];
  signal: AbortSignal;
}

/** Who claims, to people. */
export function claimant(): string {
  return `pid ${process.pid} on ${hostname()}`.slice(0, 200);
}

/** @throws {AbdmError} USAGE, PEER_UNREACHABLE, CLAIMED: nothing was changed then. */
export async function takeParked(options: ParkedOptions): Promise<Parked> {
  const { names, vmKey, security } = options;
  const found = await waitForParked(options);
  const holders = new Holders({ migration: found.migration, security, onChange: () => {} });
  try {
    const voters = found.voters.map((voter) => holders.of(voter));
    await Promise.allSettled(options.addresses().map((address) => holders.at(address)));
    const key = migrationSecret(vmKey, found.migration);
    const manifest = await openManifest(await CatalogReader.create(key), holders, names);
    const token = await claimFor(names, voters);
    if (options.signal.aborted) {
      await Promise.allSettled(voters.map((voter) => voter.release(token, claimant())));
      throw options.signal.reason;
    }
    return { found, key, manifest, token, nodes: [...holders].map(({ address, id }) => ({ address, id })) };
  } finally {
    holders.end();
  }
}

async function waitForParked({ names, security, addresses, signal }: ParkedOptions): Promise<FoundMigration> {
  for (;;) {
    signal.throwIfAborted();
    const found = findParked(names, await lookUp(addresses(), names[0]!, security));
    if (found) return found;
    await sleep(LOOK_MS);
  }
}

/** The token by which all of it is ours. Of two who each got a part of the votes, both give them back and try again. */
async function claimFor(names: readonly string[], voters: readonly Holder[]): Promise<string> {
  const token = randomBytes(16).toString('hex');
  for (let left = CLAIMS; ; left--) {
    const verdict = await claim(voters, token, claimant());
    if (verdict.granted) return token;
    await Promise.allSettled(voters.map((voter) => voter.release(token, claimant())));
    if (left === 1 || verdict.votes === 0) throw claimError(names.join(', '), verdict);
    await sleep(Math.random() * 500);
  }
}

/**
 * What left, as soon as it can be read.
 * @throws {AbdmError} USAGE if the reader's key is not theirs, PEER_UNREACHABLE if the manifest cannot be had.
 */
export async function openManifest(
  reader: CatalogReader,
  holders: Holders,
  names: readonly string[],
): Promise<Manifest> {
  const by = performance.now() + MANIFEST_MS;
  for (;;) {
    await reader.poll(
      [...holders].filter(({ state }) => state === 'up'),
      null,
    );
    if (reader.manifest) return reader.manifest;
    const [first] = reader.missing;
    if (first?.why.code === 'FRAME_TAG') {
      const text = `this key does not open ${names.join(', ')}: it was parked with another one`;
      throw new AbdmError('USAGE', `${text}; give the file that abdm eject --park wrote or read`, { cause: first.why });
    }
    if (performance.now() > by) {
      const text = `what was parked as ${names.join(', ')} cannot be read: no node that answers has its manifest`;
      throw new AbdmError('PEER_UNREACHABLE', `${text}; start this again when more nodes can be reached`);
    }
    await sleep(LOOK_MS);
  }
}
