// A scatter of frames that are made by hand, and what becomes of them at the nodes.
import { randomBytes } from 'node:crypto';
import { expect, onTestFinished } from 'vitest';
import { CatalogReader } from '#abdm/host/mam/catalog-reader.js';
import type { Chain } from '#abdm/host/mam/courier.js';
import { type Holder, Holders } from '#abdm/host/mam/holders.js';
import { NodeIndex } from '#abdm/host/mam/index.js';
import type { Kept } from '#abdm/host/mam/ledger.js';
import { type Frame, Scatter, type ScatterOptions } from '#abdm/host/mam/scatter.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { MIGRATION } from '../intermediate/client.js';
import { pattern, until } from '../wire/pair.js';

export const key = new Uint8Array(randomBytes(32));
const vms = [{ name: 'a', bytes: 2 ** 30, pages: 2 ** 18, regions: [] }];
export const never = new AbortController().signal;

/** A scatter over these nodes, and what it has said. */
export async function open(nodes: readonly { address: string }[], options: Partial<ScatterOptions> = {}, replicas = 1) {
  const index = await NodeIndex.open({ security: OPEN, listed: nodes.map(({ address }) => address) });
  const said = {
    stored: [] as number[],
    lost: [] as number[][],
    voided: [] as number[],
    given: [] as [number, boolean][],
  };
  const errors: unknown[] = [];
  const scatter = await Scatter.open({
    migration: MIGRATION,
    key,
    index,
    manifest: { migration: MIGRATION, sealed: false, replicas, vms },
    parked: true,
    leaseMs: 60_000,
    token: null,
    live: true,
    short: true,
    onGiven: ({ id }, straight) => said.given.push([id, straight]),
    onVoid: ({ id }) => said.voided.push(id),
    onStored: ({ id }) => said.stored.push(id),
    onLost: (frames) => said.lost.push(frames.map(({ id }) => id)),
    onError: (error) => errors.push(error),
    ...options,
  });
  onTestFinished(() => {
    scatter.end();
    index.close();
    expect(errors).toEqual([]);
  });
  await scatter.ready(never);
  await scatter.begin();
  const kept = (id: number) => scatter.ledger.get(id)!;
  return { scatter, said, kept };
}

/** Frames may go to it. */
export async function join(scatter: Scatter, { address }: { address: string }): Promise<void> {
  scatter.addDestination(address);
  await until(() => scatter.mam.destination !== null && scatter.mam.urgent !== null);
}

/** A frame that remembers whether it was given back. */
export function frame(id: number, { references = [] as number[], bytes = 1000 } = {}) {
  const at = { vm: 0, base: 16 * id, pages: 16, deltas: undefined };
  const made = { id, ...at, references, meta: pattern(60, id), bytes: pattern(bytes, id), released: 0 };
  return Object.assign(made, { release: () => void made.released++ }) satisfies Frame;
}

/** The id of the first node that has it. */
export const holderOf = ({ holders }: Kept) => (holders as Chain)[0]!.id;

export const range = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

/** So long that two of them fill the least of windows. */
export const LARGE = { bytes: 270_000 };

/** These nodes, as a destination reads from them. */
export async function reading<T>(
  nodes: readonly { address: string }[],
  read: (keepers: readonly Holder[]) => Promise<T>,
): Promise<T> {
  const holders = new Holders({ migration: MIGRATION, security: OPEN, onChange: () => {} });
  try {
    const keepers = await Promise.all(nodes.map(({ address }) => holders.at(address)));
    await Promise.all(keepers.map((keeper) => keeper.settled()));
    return await read(keepers);
  } finally {
    holders.end();
  }
}

/** What the nodes' index says of each frame: its state, and how many hold it. */
export function recorded(nodes: readonly { address: string }[]): Promise<Record<number, string>> {
  return reading(nodes, async (keepers) => {
    const found: Record<number, string> = {};
    await (await CatalogReader.create(key)).poll(keepers, ({ frameId, state, pfns, pages }, at, meta) => {
      expect(pfns.slice(0, pages)).toEqual(Float64Array.from({ length: 16 }, (_, i) => 16 * frameId + i));
      found[frameId] = `${state} at ${meta ? 'the destination' : at.length}`;
      if (meta) expect(meta).toEqual(pattern(60, frameId));
    });
    return found;
  });
}
